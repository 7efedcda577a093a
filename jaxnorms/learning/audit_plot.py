"""The spectra of an audit as a picture."""

import importlib
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Okabe and Ito's colours, distinguishable with any colour vision, but for the yellow, too light on white.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
_STYLES = ("-", "--", "-.", ":")
# Viridis ends in a yellow likewise.
_DARKER_THAN = 0.9
# What is smaller, relative to the largest, is rounding of the decomposition, and left out.
_FLOOR = 1e-16
_LONGEST_NAME = 40


def png(spectra: Sequence[tuple[str, np.ndarray]]) -> bytes:
    """``s_i / s_1`` on a logarithmic scale against ``i / n``, a line for each name and descending spectrum."""
    figure = _matplotlib("figure").Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    few = len(spectra) <= len(_COLOURS)
    colors = _matplotlib("colors")
    dark = colors.ListedColormap(_matplotlib("cm").viridis(np.linspace(0, _DARKER_THAN, 256)))
    scale = _matplotlib("cm").ScalarMappable(colors.Normalize(1, max(len(spectra), 2)), dark)
    for i, (name, s) in enumerate(spectra):
        t = s / s[0]
        t = np.where(t > _FLOOR, t, np.nan)
        look: dict[str, Any] = {"color": scale.to_rgba(i + 1), "linewidth": 1, "alpha": 0.8}
        if few:
            name = name.encode("unicode_escape").decode() if not name.isprintable() else name
            name = name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]
            # A dollar sign would begin a formula.
            look = {"color": _COLOURS[i], "linestyle": _STYLES[i % len(_STYLES)], "label": name.replace("$", r"\$")}
        axes.plot(np.arange(1, len(t) + 1) / len(t), t, marker="o" if len(t) < 20 else None, markersize=4, **look)
    axes.set(
        yscale="log",
        xlim=(0, 1.02),
        xlabel="position in the spectrum, $i / n$",
        ylabel="singular value relative to the largest, $s_i / s_1$",
        title=f"Spectra of {len(spectra)} tensors" if len(spectra) != 1 else "Spectrum of 1 tensor",
    )
    axes.set_ylim(top=1.5)
    axes.grid(alpha=0.3)
    if spectra and few:
        figure.legend(loc="outside right upper", fontsize=9)
    elif spectra:
        figure.colorbar(scale, ax=axes, label="order in the checkpoint")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    return out.getvalue()


def _matplotlib(module: str) -> Any:
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise ImportError("audit: the plot needs matplotlib, which is not installed") from error


def writable(path: Any) -> None:
    """Raises what :func:`replace_file` and :func:`png` would, before there is anything to write."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"audit: the plot must be a .png file, got {str(path)!r}")
    if path.is_dir():
        raise IsADirectoryError(None, "is a directory", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(None, "no such directory", str(path.parent))
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(None, "not writable", str(path.parent))
    _matplotlib("figure")


def replace_file(path: Any, content: bytes) -> None:
    """Write a file whole or not at all."""
    writable(path)
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
