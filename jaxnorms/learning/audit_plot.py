"""The spectra of an audit as a picture."""

import importlib
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxnorms.learning.auditing import Audit

# Okabe and Ito's colours, distinguishable with any colour vision, but for the yellow, too light on white.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
_STYLES = ("-", "--", "-.", ":")
# What is smaller, relative to the largest, is rounding of the decomposition, and left out.
_FLOOR = 1e-16
_LONGEST_NAME = 40


def png(audit: "Audit") -> bytes:
    """``s_i / s_1`` on a logarithmic scale against ``i / n``, a line for each tensor that is not tied to another."""
    figure = _matplotlib("figure").Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    rows = [row for row in audit.rows if row.tied_to is None and 0 < row.spectral_norm < float("inf")]
    few = len(rows) <= len(_COLOURS)
    scale = _matplotlib("cm").ScalarMappable(_matplotlib("colors").Normalize(1, max(len(rows), 2)), "viridis")
    for i, row in enumerate(rows):
        t = row.singular_values / row.singular_values[0]
        t = np.where(t > _FLOOR, t, np.nan)
        look: dict[str, Any] = {"color": scale.to_rgba(i + 1), "linewidth": 1, "alpha": 0.8}
        if few:
            name = row.name.encode("unicode_escape").decode() if not row.name.isprintable() else row.name
            name = name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]
            # A dollar sign would begin a formula.
            look = {"color": _COLOURS[i], "linestyle": _STYLES[i % len(_STYLES)], "label": name.replace("$", r"\$")}
        axes.plot(np.arange(1, len(t) + 1) / len(t), t, marker="o" if len(t) < 20 else None, markersize=4, **look)
    axes.set(
        yscale="log",
        xlim=(0, 1.02),
        xlabel="position in the spectrum, $i / n$",
        ylabel="singular value relative to the largest, $s_i / s_1$",
        title=f"Spectra of {len(rows)} tensors" if len(rows) != 1 else "Spectrum of 1 tensor",
    )
    axes.set_ylim(top=1.5)
    axes.grid(alpha=0.3)
    if rows and few:
        figure.legend(loc="outside right upper", fontsize=9)
    elif rows:
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
