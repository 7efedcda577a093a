"""Checkpoints on disk, ``.safetensors`` and ``.npz``: their tensors, one at a time, and every fault in one line."""

import hashlib
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

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
_INDEX = ".safetensors.index.json"
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
    """One tensor of a checkpoint. ``read`` brings it, whole and in its stored type, into memory.

    Of an unsupported type ``dtype`` is None, and ``read`` raises :class:`CheckpointError`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype | None
    read: Callable[[], np.ndarray] = field(compare=False, repr=False)


def printable(text: str) -> str:
    """The text, with escapes for what would break a line or a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def digest(a: np.ndarray) -> bytes | None:
    """Of the entries, in blocks of rows; None if all are zero, as adapters start, and those are not tied."""
    flat = a.reshape(len(a), -1) if a.size else a.reshape(0, 1)
    found, zero = hashlib.blake2b(digest_size=32), True
    step = max(1, 2**17 // flat.shape[1])
    for i in range(0, len(flat), step):
        block = np.ascontiguousarray(flat[i : i + step]).reshape(-1).view(np.uint8)
        zero = zero and not block.any()
        found.update(block.data)
    return None if zero else found.digest()


def open_checkpoints(paths: Sequence[Any]) -> list[Tensor]:
    """The tensors of several files, as :func:`open_checkpoint`; a name that two of them hold is a fault."""
    held: dict[str, Path] = {}
    found = []
    for path in map(Path, paths):
        for tensor in open_checkpoint(path):
            if tensor.name in held:
                raise _fault(path, f"tensor {tensor.name!r} occurs in {held[tensor.name]} too")
            held[tensor.name] = path
            found.append(tensor)
    return found


def open_checkpoint(path: Any) -> list[Tensor]:
    """The tensors of a file, in the order in which they are stored, none of them read yet.

    What the file says of itself is checked here against its size: a truncated file is refused before anything of it is
    read. Raises :class:`CheckpointError`, as the tensors' ``read`` does for what shows only then, and for tensors of an
    unsupported type, so that these are no fault of the others.

    * ``.safetensors``: all its types but packed ones of less than 8 bits and ``F8_E8M0``.
    * ``.safetensors.index.json``: ``{"weight_map": {name: file}}``, the tensors that it names, of ``.safetensors``
      files beside it, in the order of these files' names.
    * ``.npz``: as ``np.savez`` and ``np.savez_compressed`` write them; bfloat16, which NumPy stores without
      its name, as two bytes ``'|V2'``, is read as bfloat16. Objects, records and types of more than 64 bits a part
      are unsupported.
    """
    path = Path(path)
    readers = {_INDEX: _indexed, ".safetensors": _safetensors, ".npz": _npz}
    reader = next((read for suffix, read in readers.items() if path.name.lower().endswith(suffix)), None)
    if reader is None:
        expected = ".safetensors, .safetensors.index.json or .npz"
        raise _fault(path, f"unsupported kind of file {path.suffix!r}, expected {expected}")
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise _fault(path, "is a directory" if stat.S_ISDIR(mode) else "is not a regular file")
        return reader(path)
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise _fault(path, "no such file") from error
    except OSError as error:
        raise _fault(path, error.strerror or str(error)) from error
    except ValueError as error:  # a name that no file can have
        raise _fault(path, _said(error)) from error


def _fault(path: Path, fault: str) -> CheckpointError:
    return CheckpointError(printable(f"{path}: {fault}"))


def _unsupported(path: Path, name: str, kind: str) -> NoReturn:
    raise _fault(path, f"tensor {name!r}: unsupported dtype {kind!r}")


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
    header = _object(path, text, "header")
    header.pop("__metadata__", None)
    entries = [(name, *_entry(path, name, entry)) for name, entry in header.items()]
    entries.sort(key=lambda entry: entry[3:])
    data, end = 8 + length, 0
    tensors = []
    for name, shape, kind, start, stop in entries:
        if start != end:
            fault = "overlaps the one before" if start < end else f"leaves {start - end} bytes unused before it"
            raise _fault(path, f"corrupt header: tensor {name!r} {fault}")
        if data + stop > size:
            raise _fault(path, f"truncated: tensor {name!r} ends at byte {data + stop} of {size}")
        dtype, read = _TYPES.get(kind), partial(_unsupported, path, name, kind)
        if dtype is not None:
            read = partial(_read, path, name, shape, dtype, data + start)
        end = stop
        tensors.append(Tensor(name, shape, dtype, read))
    if data + end != size:
        raise _fault(path, f"corrupt: {size - data - end} bytes after the last tensor")
    return tensors


def _indexed(path: Path) -> list[Tensor]:
    """``{"weight_map": {name: file}}`` in JSON."""
    size = path.stat().st_size
    if size > _LONGEST_HEADER:
        raise _fault(path, f"corrupt index: of {size} bytes")
    index = _object(path, path.read_bytes(), "index")
    files = index.get("weight_map")
    if not isinstance(files, dict):
        raise _fault(path, "corrupt index: weight_map is not a JSON object")
    for name, file in files.items():
        if not isinstance(file, str) or {"/", "\\"} & set(file) or not file.lower().endswith(".safetensors"):
            raise _fault(path, f"index: tensor {name!r} is in {file!r}, expected a .safetensors file beside the index")
    found = []
    for file in sorted(set(files.values())):
        held = open_checkpoint(path.parent / file)
        names = {tensor.name for tensor in held}
        missing = next((name for name in files if files[name] == file and name not in names), None)
        if missing is not None:
            raise _fault(path, f"index: {file!r} does not hold the tensor {missing!r}")
        found += [tensor for tensor in held if files.get(tensor.name) == file]
    return found


def _object(path: Path, text: bytes, kind: str) -> dict[str, Any]:
    try:
        found = json.loads(text.decode(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _fault(path, f"corrupt {kind}: {_said(error)}") from error
    if not isinstance(found, dict):
        raise _fault(path, f"corrupt {kind}: not a JSON object")
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _entry(path: Path, name: str, entry: Any) -> tuple[tuple[int, ...], str, int, int]:
    """Shape, type and offsets of a tensor; of a type that is not known these are not checked against the shape."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise _fault(path, f"corrupt header: tensor {name!r} has not dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str):
        raise _fault(path, f"corrupt header: tensor {name!r} has dtype {kind!r}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or any(type(n) is not int or n < 0 for n in numbers):
            raise _fault(path, f"corrupt header: tensor {name!r} has shape {shape!r} and data_offsets {offsets!r}")
    if len(offsets) != 2 or offsets[1] < offsets[0]:
        raise _fault(path, f"corrupt header: tensor {name!r} has data_offsets {offsets!r}")
    dtype = _TYPES.get(kind)
    if dtype is not None and offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        needed = math.prod(shape) * dtype.itemsize
        raise _fault(path, f"corrupt header: tensor {name!r} of {needed} bytes has data_offsets {offsets!r}")
    return tuple(shape), kind, offsets[0], offsets[1]


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
    if dtype is None:
        return Tensor(name, shape, None, partial(_unsupported, path, name, str(stored)))
    needed = math.prod(shape) * stored.itemsize
    if start + needed != info.file_size:
        held = info.file_size - start
        raise _fault(path, f"corrupt: tensor {name!r} has {held} bytes, its shape {shape} needs {needed}")
    return Tensor(name, shape, dtype, partial(_read_member, path, info.filename, name))


def _npy_header(path: Path, name: str, file: Any) -> tuple[tuple[int, ...], bool, np.dtype, np.dtype | None, int]:
    """Shape, whether in Fortran's order, type as NumPy takes it, type as it is meant, None if that is not supported,
    and length of the header."""
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
        dtype = None
    if any(n < 0 for n in shape):
        raise _fault(path, f"corrupt: tensor {name!r} has shape {shape}")
    return shape, fortran, stored, dtype, file.tell()


def _read_member(path: Path, member: str, name: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            shape, fortran, stored, dtype, _ = _npy_header(path, name, file)
            if dtype is None:
                _unsupported(path, name, str(stored))
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
