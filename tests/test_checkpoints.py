"""Checkpoints: what the readers return, and how the command line refuses files that it cannot read."""

import io
import json
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

from jaxnorms.__main__ import main
from jaxnorms.checkpoints import CheckpointError, open_checkpoint

RNG = np.random.default_rng(0)
ARRAYS = {
    "f64": RNG.standard_normal((3, 4)),
    "f32": RNG.standard_normal((5, 2)).astype(np.float32),
    "f16": RNG.standard_normal((2, 3, 4)).astype(np.float16),
    "bf16": RNG.standard_normal((4, 6)).astype(ml_dtypes.bfloat16),
    "ints": np.arange(6).reshape(2, 3),
    "flags": np.array([True, False]),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "c64": (RNG.standard_normal((3, 3)) + 1j).astype(np.complex64),
}
NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "bool": "BOOL"}
NAMES["complex64"] = "C64"


def safetensors(arrays, change=lambda header: None, tail=b""):
    """The bytes of a file, of a header that may be changed."""
    header: dict = {"__metadata__": {"format": "np"}}
    data = b""
    for name, a in arrays.items():
        offsets = [len(data), len(data) + a.nbytes]
        header[name] = {"dtype": NAMES[a.dtype.name], "shape": list(a.shape), "data_offsets": offsets}
        data += a.tobytes()
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data + tail


def npz(arrays, save=np.savez, **how):
    out = io.BytesIO()
    save(out, **arrays, **how)
    return out.getvalue()


def archive(name, content):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(name, content)
    return out.getvalue()


def npy(header, data=b""):
    text = (header + "\n").encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize("kind", ["safetensors", "npz", "compressed"])
def test_every_tensor_comes_back(tmp_path, kind):
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.npz")
    arrays = {**ARRAYS, "fortran": np.asfortranarray(ARRAYS["f64"])} if kind != "safetensors" else ARRAYS
    save = np.savez_compressed if kind == "compressed" else np.savez
    path.write_bytes(safetensors(arrays) if kind == "safetensors" else npz(arrays, save))
    found = {tensor.name: tensor for tensor in open_checkpoint(path)}
    assert found.keys() == arrays.keys()
    for name, a in arrays.items():
        assert (found[name].shape, found[name].dtype) == (a.shape, a.dtype)
        back = found[name].read()
        assert back.dtype == a.dtype
        np.testing.assert_array_equal(back, a)


def test_files_of_the_safetensors_package(tmp_path):
    package = pytest.importorskip("safetensors.numpy", reason="compared with where it is installed")
    arrays = {name: ARRAYS[name] for name in ("f64", "f32", "f16", "ints", "flags", "empty")}
    package.save_file(arrays, tmp_path / "theirs.safetensors", metadata={"format": "np"})
    for tensor in open_checkpoint(tmp_path / "theirs.safetensors"):
        np.testing.assert_array_equal(tensor.read(), arrays[tensor.name])
    ours = package.load(safetensors(arrays))
    for name, a in arrays.items():
        np.testing.assert_array_equal(ours[name], a)


def entry(**change):
    return lambda header: header["w"].update(change)


W = {"w": np.eye(3, dtype=np.float32)}
TWO = {"v": np.eye(2, dtype=np.float32), **W}
GOOD, GOOD_NPZ = safetensors(W), npz(W)
FLIPPED = GOOD_NPZ.replace(np.float32(1).tobytes(), np.float32(2).tobytes(), 1)
OBJECT = npz({"w": np.array([[{}]], dtype=object)}, allow_pickle=True)
DEEP = b"[" * 100_000
# file name, content, words of the message
BAD = {
    "empty": ("a.safetensors", b"", "truncated"),
    "no whole length": ("a.safetensors", GOOD[:5], "truncated"),
    "truncated header": ("a.safetensors", GOOD[:30], "header of"),
    "huge header": ("a.safetensors", b"\xff" * 8 + GOOD[8:], "header of"),
    "truncated data": ("a.safetensors", GOOD[:-1], "ends at byte"),
    "more data": ("a.safetensors", GOOD + b"0", "1 bytes after"),
    "not JSON": ("a.safetensors", (4).to_bytes(8, "little") + b"{'a'", "corrupt header"),
    "not text": ("a.safetensors", (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc", "corrupt header"),
    "nested": ("a.safetensors", len(DEEP).to_bytes(8, "little") + DEEP, "corrupt header"),
    "a list": ("a.safetensors", (2).to_bytes(8, "little") + b"[]", "not a JSON object"),
    "a name twice": ("a.safetensors", (15).to_bytes(8, "little") + b'{"a":{},"a":{}}', "twice"),
    "no entry": ("a.safetensors", safetensors(W, lambda header: header.update(w=3)), "'w'"),
    "unknown type": ("a.safetensors", safetensors(W, entry(dtype="F4")), "unsupported dtype 'F4'"),
    "type of another kind": ("a.safetensors", safetensors(W, entry(dtype=["F32"])), "has dtype ['F32']"),
    "type of unknown size": (
        "a.safetensors",
        safetensors(TWO, lambda header: header["v"].update(dtype="F4", data_offsets=[0, 8])),
        "8 bytes unused before it",
    ),
    "reversed offsets": (
        "a.safetensors",
        safetensors(W, entry(dtype="F4", data_offsets=[36, 0])),
        "data_offsets [36, 0]",
    ),
    "wrong size": ("a.safetensors", safetensors(W, entry(shape=[3, 4])), "48 bytes"),
    "negative shape": ("a.safetensors", safetensors(W, entry(shape=[-3, -3])), "shape [-3, -3]"),
    "fractional shape": ("a.safetensors", safetensors(W, entry(shape=[3.0, 3])), "shape [3.0, 3]"),
    "one offset": ("a.safetensors", safetensors(W, entry(data_offsets=[36])), "[36]"),
    "overlap": (
        "a.safetensors",
        safetensors(TWO, lambda header: header["w"].update(data_offsets=[8, 44]))[:-8],
        "'w' overlaps",
    ),
    "gap": ("a.safetensors", safetensors(W, entry(data_offsets=[4, 40]), b"0000"), "4 bytes unused"),
    "line break in a name": ("a.safetensors", safetensors({"a\nb": W["w"]})[:-1], "'a\\nb'"),
    "empty archive": ("a.npz", b"", "corrupt"),
    "truncated archive": ("a.npz", GOOD_NPZ[:-40], "corrupt"),
    "not an archive": ("a.npz", GOOD, "corrupt"),
    "wrong checksum": ("a.npz", FLIPPED, "Bad CRC-32"),
    "objects": ("a.npz", OBJECT, "unsupported dtype"),
    "records": ("a.npz", npz({"w": np.zeros((2, 2), [("a", "f4")])}), "unsupported dtype"),
    "long double": ("a.npz", npz({"w": np.zeros((2, 2), np.longdouble)}), "unsupported dtype"),
    "other member": ("a.npz", archive("w.txt", b"words"), "unsupported member"),
    "no header": ("a.npz", archive("w.npy", b"words"), "corrupt"),
    "unreadable header": ("a.npz", archive("w.npy", npy("{'descr': (((")), "corrupt"),
    "member too short": ("a.npz", archive("w.npy", npy("{'descr':'<f4','fortran_order':False,'shape':(9,9)}")), "324"),
    "other extension": ("a.bin", GOOD, "unsupported kind"),
    "pickle": ("a.pt", GOOD, "unsupported kind"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_is_refused_in_one_line_with_nothing_written(tmp_path, capsys, fault):
    name, content, words = BAD[fault]
    path = tmp_path / name
    path.write_bytes(content)
    assert main(["audit", str(path), "--plot", str(tmp_path / "a.png")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    assert err.startswith(f"jaxnorms audit: {path}: ")
    assert words in err
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_missing_files_and_directories_are_refused(tmp_path, capsys):
    (tmp_path / "folder.npz").mkdir()
    for name, words in (("none.safetensors", "no such file"), ("folder.npz", "is a directory")):
        assert main(["audit", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err == f"jaxnorms audit: {tmp_path / name}: {words}\n"


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_an_unsupported_type_is_a_fault_of_its_tensor_alone(tmp_path, capsys, kind):
    """Of vectors and of what is left out it is none; of a chosen matrix it is, before any other is read."""
    odd = {"packed": np.zeros((2, 6), np.float32), "flat": np.zeros(3, np.float32)}
    if kind == "npz":
        content = npz({**W, **{name: a.astype(object) for name, a in odd.items()}}, allow_pickle=True)
    else:
        content = safetensors({**W, **odd}, lambda header: [header[name].update(dtype="F4") for name in odd])
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    found = {tensor.name: tensor for tensor in open_checkpoint(path)}
    assert {name: tensor.dtype for name, tensor in found.items()} == {"w": np.float32, "packed": None, "flat": None}
    assert found["packed"].shape == (2, 6)
    with pytest.raises(CheckpointError, match="tensor 'packed': unsupported dtype"):
        found["packed"].read()
    assert main(["audit", str(path), "--json", "--where", "w|flat"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert ([row["name"] for row in report["tensors"]], report["left_out_parameters"]) == (["w"], 15)
    assert main(["audit", str(path)]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert "tensor 'packed': unsupported dtype" in err


def sharded(folder, weight_map, **files):
    for name, arrays in files.items():
        (folder / f"{name}.safetensors").write_bytes(safetensors(arrays))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return str(index)


V = {"v": np.diag(np.array([3, 2], np.float32))}


def test_an_index_and_its_files_are_one_checkpoint(tmp_path, capsys):
    """Ties are found across the files, and totals are those of all; the index decides what belongs to it."""
    two = {**V, "w": 2 * W["w"], "tied": W["w"], "other": W["w"]}
    index = sharded(tmp_path, {"v": "b.safetensors", "tied": "b.safetensors", "w": "a.safetensors"}, a=W, b=two)
    assert main(["audit", index, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["tied_to"]) for row in found["tensors"]] == [("w", None), ("v", None), ("tied", "w")]
    assert (found["parameters"], found["lipschitz_bound"]) == (13, pytest.approx(3, rel=1e-14))


def test_several_files_are_one_checkpoint(tmp_path, capsys):
    files = [tmp_path / "a.npz", tmp_path / "b.safetensors"]
    files[0].write_bytes(npz(W))
    files[1].write_bytes(safetensors({**V, "tied": W["w"]}))
    assert main(["audit", *map(str, files)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("a.npz, b.safetensors\n")
    assert "3 tensors, 1 of them tied to another, of 13 parameters" in out
    assert main(["audit", str(files[0]), str(files[0])]) == 2
    err = capsys.readouterr().err
    assert err == f"jaxnorms audit: {files[0]}: tensor 'w' occurs in {files[0]} too\n"


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ({"w": "../a.safetensors"}, "'../a.safetensors', expected a .safetensors file beside"),
        ({"w": "b\\a.safetensors"}, "expected a .safetensors file beside"),
        ({"w": "model.safetensors.index.json"}, "expected a .safetensors file beside"),
        ({"w": ["a.safetensors"]}, "expected a .safetensors file beside"),
        ({"w": "none.safetensors"}, "none.safetensors: no such file"),
        ({"w": "\0.safetensors"}, "null"),
        ({"w": "\ud800.safetensors"}, "surrogates not allowed"),
        ({"w": "a.safetensors", "x\n": "a.safetensors"}, "'a.safetensors' does not hold the tensor 'x\\n'"),
        (["a.safetensors"], "weight_map is not a JSON object"),
    ],
)
def test_a_bad_index_is_refused_in_one_line(tmp_path, capsys, weight_map, words):
    assert main(["audit", sharded(tmp_path, weight_map, a=W)]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith(f"jaxnorms audit: {tmp_path}/")
    assert words in err


def test_an_index_that_is_no_json_is_refused(tmp_path):
    path = tmp_path / "a.safetensors.index.json"
    for content in (b"", b"[]", b"{", b"\xff", DEEP, b'{"weight_map": {"a": "b", "a": "b"}}'):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="corrupt index"):
            open_checkpoint(path)


def test_a_file_that_shrinks_after_it_was_opened_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(GOOD)
    (tensor,) = open_checkpoint(path)
    path.write_bytes(GOOD[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        tensor.read()


def test_as_a_process(tmp_path):
    """Exit codes and streams; JAX's mode is that of the process alone."""
    good, bad = tmp_path / "a.npz", tmp_path / "b.npz"
    good.write_bytes(npz(W))
    bad.write_bytes(b"words")
    command = [sys.executable, "-m", "jaxnorms"]
    done = subprocess.run([*command, "audit", str(good), "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["tensors"][0]["spectral_norm"] == 1
    done = subprocess.run([*command, "audit", str(bad)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
