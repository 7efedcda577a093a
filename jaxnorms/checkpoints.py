"""Checkpoints on disk, ``.safetensors`` and ``.npz``: their tensors, one at a time, and every fault in one line."""

import itertools
import json
import lzma
import math
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

_TYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "F8_E4M3": np.dtype(jnp.float8_e4m3fn),
    "F8_E5M2": np.dtype(jnp.float8_e5m2),
    "C64": np.dtype("<c8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
# The format's own limit.
_LONGEST_HEADER = 100_000_000
# What zipfile and numpy.lib.format are known to raise for bytes that are not what they should be.
_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


class CheckpointError(ValueError):
    """A file that is missing, truncated, corrupt or of an unsupported kind; its message is one line."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint. ``read`` brings it, whole and in its stored type, into memory."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray] = field(compare=False, repr=False)


def printable(text: str) -> str:
    """The text, with escapes for what would break a line or a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def open_checkpoint(path: Any) -> list[Tensor]:
    """The tensors of a ``.safetensors`` or ``.npz`` file, in the order in which they are stored, none of them read yet.

    What the file says of itself is checked here against its size: a truncated file is refused before anything of it is
    read. Raises :class:`CheckpointError`, as the tensors' ``read`` does for what shows only then.

    * ``.safetensors``: all its types but packed ones of less than 8 bits and ``F8_E8M0``.
    * ``.npz``: as ``np.savez`` and ``np.savez_compressed`` write them; bfloat16, which NumPy stores without
      its name, as two bytes ``'|V2'``, is read as bfloat16. Objects, records and types of more than 64 bits a part
      are refused.
    """
    path = Path(path)
    readers = {".safetensors": _safetensors, ".npz": _npz}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise _fault(path, f"unsupported kind of file {path.suffix!r}, expected .safetensors or .npz")
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise _fault(path, "is a directory" if stat.S_ISDIR(mode) else "is not a regular file")
        return reader(path)
    except FileNotFoundError as error:
        raise _fault(path, "no such file") from error
    except OSError as error:
        raise _fault(path, error.strerror or str(error)) from error


def _fault(path: Path, fault: str) -> CheckpointError:
    return CheckpointError(printable(f"{path}: {fault}"))


def _said(error: BaseException) -> str:
    """The first line of its message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _safetensors(path: Path) -> list[Tensor]:
    """An 8-byte length, a header ``{name: {dtype, shape, data_offsets}}`` in JSON, and the data without gaps."""
    with path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8:
            raise _fault(path, f"truncated: {size} bytes, fewer than the 8 of the header's length")
        if length > min(size - 8, _LONGEST_HEADER):
            raise _fault(path, f"truncated or corrupt: a header of {length} bytes in a file of {size}")
        text = file.read(length)
    try:
        header = json.loads(text.decode(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _fault(path, f"corrupt header: {_said(error)}") from error
    if not isinstance(header, dict):
        raise _fault(path, "corrupt header: not a JSON object")
    header.pop("__metadata__", None)
    entries = [(name, *_entry(path, name, entry)) for name, entry in header.items()]
    entries.sort(key=lambda entry: entry[3:])
    data, end = 8 + length, 0
    tensors = []
    for name, shape, dtype, start, stop in entries:
        if start != end:
            fault = "overlaps the one before" if start < end else f"leaves {start - end} bytes unused before it"
            raise _fault(path, f"corrupt header: tensor {name!r} {fault}")
        if data + stop > size:
            raise _fault(path, f"truncated: tensor {name!r} ends at byte {data + stop} of {size}")
        tensors.append(Tensor(name, shape, dtype, partial(_read, path, name, shape, dtype, data + start)))
        end = stop
    if data + end != size:
        raise _fault(path, f"corrupt: {size - data - end} bytes after the last tensor")
    return tensors


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _entry(path: Path, name: str, entry: Any) -> tuple[tuple[int, ...], np.dtype, int, int]:
    """Shape, type and offsets of a tensor."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise _fault(path, f"corrupt header: tensor {name!r} has not dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _TYPES:
        raise _fault(path, f"tensor {name!r}: unsupported dtype {kind!r}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or any(type(n) is not int or n < 0 for n in numbers):
            raise _fault(path, f"corrupt header: tensor {name!r} has shape {shape!r} and data_offsets {offsets!r}")
    needed = math.prod(shape) * _TYPES[kind].itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != needed:
        raise _fault(path, f"corrupt header: tensor {name!r} of {needed} bytes has data_offsets {offsets!r}")
    return tuple(shape), _TYPES[kind], offsets[0], offsets[1]


def _read(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, start: int) -> np.ndarray:
    try:
        out = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
        array = out.view(dtype).reshape(shape)
        with path.open("rb") as file:
            file.seek(start)
            _fill(file, out)
    except (OSError, EOFError, ValueError) as error:
        raise _fault(path, f"tensor {name!r}: truncated or corrupt: {_said(error)}") from error
    return array


def _npz(path: Path) -> list[Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            tensors = [_member(path, archive, info) for info in members]
    except CheckpointError:
        raise
    except _FAULTS as error:
        raise _fault(path, f"truncated or corrupt: {_said(error)}") from error
    names = [tensor.name for tensor in tensors]
    if len(set(names)) < len(names):
        raise _fault(path, "corrupt: a name occurs twice")
    return tensors


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    name, suffix = info.filename.removesuffix(".npy"), info.filename[-4:]
    if suffix != ".npy":
        raise _fault(path, f"unsupported member {info.filename!r}, expected .npy")
    with archive.open(info) as file:
        shape, _, stored, dtype, start = _npy_header(path, name, file)
    needed = math.prod(shape) * stored.itemsize
    if start + needed != info.file_size:
        held = info.file_size - start
        raise _fault(path, f"corrupt: tensor {name!r} has {held} bytes, its shape {shape} needs {needed}")
    return Tensor(name, shape, dtype, partial(_read_member, path, info.filename, name))


def _npy_header(path: Path, name: str, file: Any) -> tuple[tuple[int, ...], bool, np.dtype, np.dtype, int]:
    """Shape, whether in Fortran's order, type as NumPy takes it, type as it is meant, and length of the header."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise _fault(path, f"tensor {name!r}: unsupported version {version} of the .npy format")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        shape, fortran, stored = readers[version](file)
    dtype = _TYPES["BF16"] if stored == np.dtype("V2") and stored.names is None else stored
    largest = {"f": 8, "c": 16}.get(dtype.kind, math.inf)
    if dtype.hasobject or (dtype.kind not in "biufcSUmM" and dtype != _TYPES["BF16"]) or dtype.itemsize > largest:
        raise _fault(path, f"tensor {name!r}: unsupported dtype {printable(str(stored))}")
    if any(n < 0 for n in shape):
        raise _fault(path, f"corrupt: tensor {name!r} has shape {shape}")
    return shape, fortran, stored, dtype, file.tell()


def _read_member(path: Path, member: str, name: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            shape, fortran, _, dtype, _ = _npy_header(path, name, file)
            out = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
            array = out.view(dtype).reshape(shape[::-1]).T if fortran else out.view(dtype).reshape(shape)
            _fill(file, out)
            if file.read(1):  # the checksum is compared at the end of the member
                raise ValueError("bytes after the data")
    except CheckpointError:
        raise
    except _FAULTS as error:
        raise _fault(path, f"tensor {name!r}: truncated or corrupt: {_said(error)}") from error
    return array


def _fill(file: BinaryIO | Any, out: np.ndarray) -> None:
    step = 2**20
    for i in itertools.count(0, step):
        if i >= out.size:
            return
        part = file.read(min(step, out.size - i))
        if len(part) < min(step, out.size - i):
            raise EOFError("data ends early")
        out[i : i + len(part)] = np.frombuffer(part, np.uint8)
