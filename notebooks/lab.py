"""What the notebooks share: one look, colours that the colour-blind can tell apart, progress bars, saved figures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from tqdm import tqdm

# Okabe and Ito (2008), without yellow, which is too light for a line.
BLUE, RED, GREEN, ORANGE, PINK, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
BLACK, GREY = "black", "0.55"

plt.rcParams.update(
    {
        "axes.grid": True,
        "axes.prop_cycle": plt.cycler(color=[BLUE, RED, GREEN, ORANGE, PINK, SKY]),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": 10,
        "grid.alpha": 0.3,
        "image.cmap": "gray",
        "legend.frameon": False,
    }
)


def progress(steps: Iterable[Any], what: str) -> tqdm:
    """``steps`` with a progress bar that says ``what`` is under way."""
    return tqdm(steps, desc=what, ncols=90, mininterval=1)


def save(figure: Figure, name: str, dpi: int = 130) -> None:
    """Save a figure as ``figures/<name>.png`` and show it."""
    path = Path(__file__).parent / "figures" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=dpi, pil_kwargs={"optimize": True})
    plt.show()
