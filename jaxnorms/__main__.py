"""The command line: ``python -m jaxnorms audit FILE ...``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import jax
import numpy as np

from jaxnorms.checkpoints import CheckpointError, Tensor, open_checkpoints, printable
from jaxnorms.learning.audit_plot import png, replace_file, writable
from jaxnorms.learning.auditing import Audit, audit_tensors

_FAULT = 2


class _Parser(argparse.ArgumentParser):
    """One line for a fault, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(_FAULT, f"{self.prog}: {printable(message)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 2 after one line on standard error, with nothing written."""
    parser = _Parser(prog="jaxnorms", description="Matrix norms.")
    commands = parser.add_subparsers(dest="command")
    _describe(commands.add_parser("audit", help="norms, ranks and condition of the tensors of a checkpoint"))
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else _FAULT
    if args.command is None:
        parser.print_help(sys.stderr)
        return _FAULT
    try:
        _audit(args)
    except BrokenPipeError:  # the reader has what it wanted; Python flushes once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return _refused("interrupted", 130)
    except (CheckpointError, ImportError, TypeError, ValueError, np.linalg.LinAlgError) as error:
        return _refused(str(error).removeprefix("audit: "))
    except MemoryError as error:
        return _refused(f"out of memory: {error}")
    except OSError as error:
        return _refused(f"{error.filename or 'standard output'}: {error.strerror or error}")
    return 0


def _refused(fault: str, code: int = _FAULT) -> int:
    print(f"jaxnorms audit: {printable(fault)}", file=sys.stderr)
    return code


def _describe(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "For every matrix and convolution kernel of a checkpoint: norms, ranks, condition; and a Lipschitz bound of "
        "their composition. In double precision, one tensor in memory at a time: a square one in float32 takes about "
        "four times what it takes stored. One of 2048 x 2048 takes about 1.4 seconds on one thread, and m x n in "
        "proportion to m n min(m, n)."
    )
    parser.add_argument(
        "file",
        nargs="+",
        help="a .safetensors or .npz file, or the .safetensors.index.json of several; all are one checkpoint",
    )
    parser.add_argument("--json", action="store_true", help="print JSON: NaN is null, infinities are strings")
    parser.add_argument("--plot", metavar="FILE.png", help="write the spectra as a picture (needs matplotlib)")
    parser.add_argument("--where", metavar="REGEX", help="only tensors in whose name this is found")
    parser.add_argument("--energy", type=float, default=0.99, help="share that the compressible rank keeps (0.99)")
    parser.add_argument(
        "--layout",
        metavar="OIHW[,OIW,...]",
        help="axes of the kernels, one layout for each number of axes: OIHW, OIW for PyTorch, HWIO, WIO for Flax; "
        "without it tensors of 3 axes or more, beyond their batch axes, are refused",
    )
    parser.add_argument(
        "--batch-axes",
        metavar="[REGEX=]N",
        action="append",
        default=[],
        help="the first N axes of tensors in whose name this is found, or of all others, count matrices or kernels (of "
        "experts, of scanned layers), each with a row of its own; repeatable, the first REGEX found is taken",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _audit(args: argparse.Namespace) -> None:
    layouts, batch_axes = _layouts(args.layout), _batch_axes(args.batch_axes)

    def layout_of(tensor: Tensor, axes: int) -> str:
        if axes not in layouts:
            raise ValueError(
                f"tensor {tensor.name!r} of shape {tensor.shape}: give --layout of its {axes} axes (such as OIHW for "
                "PyTorch, HWIO for Flax), --batch-axes if it is a stack, or --where to leave it out"
            )
        return layouts[axes]

    if args.plot is not None:
        writable(args.plot)
    tensors = [(tensor, None) for tensor in open_checkpoints(args.file)]
    progress = not args.quiet and sys.stderr.isatty()
    found = audit_tensors(tensors, args.where, batch_axes, args.energy, layout_of, progress)
    picture = None if args.plot is None else png(found.spectra)
    print(found.to_json() if args.json else _page(args.file, found), flush=True)
    if picture is not None:
        replace_file(args.plot, picture)


def _layouts(given: str | None) -> dict[int, str]:
    layouts = {} if given is None else {len(layout): layout for layout in given.split(",")}
    for layout in layouts.values():
        if len(layout) < 3 or len(set(layout)) < len(layout) or not {"I", "O"} <= set(layout):
            raise ValueError(f"--layout must hold layouts such as OIHW, got {layout!r}")
    return layouts


def _batch_axes(given: Sequence[str]) -> dict[str, int]:
    """The pattern that is found in every name comes last, wherever it was given."""
    found: dict[str, int] = {}
    for choice in given:
        pattern, _, number = choice.rpartition("=")
        if not (number.isascii() and number.isdecimal() and len(number) < 4) or pattern in found:
            raise ValueError(f"--batch-axes must be N or REGEX=N, each REGEX once, got {choice!r}")
        found[pattern] = int(number)
    return {pattern: found[pattern] for pattern in sorted(found, key=lambda pattern: not pattern)}


def _page(files: Sequence[str], found: Audit) -> str:
    return f"{printable(', '.join(Path(file).name for file in files))}\n\n{found.table()}"


if __name__ == "__main__":
    # This process is the command's own. No array of JAX is made in it, so that no accelerator is taken; if one ever is,
    # then in double precision.
    jax.config.update("jax_enable_x64", True)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    sys.exit(main())
