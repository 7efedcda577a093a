"""The audit: its numbers against LAPACK's and the other functions of the package, bad entries, layouts, reports."""

import json
import math
import sys
import weakref

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from matrices import REAL, gaussian, prescribed, spectra, tolerance

import jaxnorms as jn
from jaxnorms.__main__ import main
from jaxnorms.checkpoints import Tensor
from jaxnorms.learning.auditing import audit, audit_tensors
from jaxnorms.learning.blocked_spectrum import reduced
from jaxnorms.learning.kernel_bound import kernel_bound

inf, nan = math.inf, math.nan
EXACT = tolerance(np.float64)


def only(params, **how):
    (row,) = audit(params, **how).rows
    return row


# Tall enough for many blocks, wide enough likewise, one block, vectors either way.
@pytest.mark.parametrize("shape", [(9000, 40), (30, 7000), (50, 60), (70000, 1), (1, 70000)])
@pytest.mark.parametrize("dtype", [np.float64, np.complex64])
def test_blocks_have_the_singular_values_of_the_whole(shape, dtype):
    a = gaussian(shape, dtype)
    found = reduced(a)
    wide = a.astype(np.complex128 if dtype == np.complex64 else np.float64)
    expected = np.linalg.svd(wide, compute_uv=False)
    np.testing.assert_allclose(np.ldexp(found.singular_values(), found.exponent), expected, atol=EXACT * expected[0])
    for value, size in ((found.column_sum, 1), (found.row_sum, inf)):
        np.testing.assert_allclose(np.ldexp(value, found.exponent), np.linalg.norm(wide, size), rtol=EXACT)
    np.testing.assert_allclose(np.ldexp(found.entry, found.exponent), np.abs(wide).max(), rtol=EXACT)


@pytest.mark.parametrize("name", [*spectra(1)])
def test_numbers_are_those_of_spectrum_summary(name):
    a = prescribed(spectra(6)[name], (9, 6), np.float64).astype(REAL)
    if name == "graded":  # what one type holds of it, the other does not
        a = np.diag(np.array([1.0, 0.5, 0.25, 2.0**-20, 2.0**-60, 0.0], REAL))
    row, summary = only({"w": a}), jn.spectrum_summary(jnp.asarray(a))
    for field in ("spectral_norm", "nuclear_norm", "frobenius_norm", "stable_rank", "effective_rank"):
        np.testing.assert_allclose(getattr(row, field), getattr(summary, field), rtol=tolerance(REAL), err_msg=field)
    assert row.numerical_rank == summary.numerical_rank
    if summary.cond < 1e4:
        np.testing.assert_allclose(row.cond, summary.cond, rtol=tolerance(REAL, size=float(summary.cond)))


def test_compressible_rank_is_the_least_that_keeps_the_energy():
    a = np.diag([3.0, 2.0, 1.0, 0.0])
    for energy, rank in ((9 / 14, 1), (0.65, 2), (13 / 14, 2), (0.95, 3), (1, 3)):
        row = only([a], energy=energy)
        assert row.energy_rank == rank, energy
        assert row.saved_parameters == max(0, 16 - 8 * rank)
    assert only([np.eye(100)]).energy_rank == 99


def test_where_and_layouts_are_asked_of_a_stack_as_a_whole():
    params = {"conv": gaussian((2, 5, 4, 3), REAL), "w": np.eye(3), "none": np.zeros((0, 3, 3))}
    found = audit(params, batch_axes={"conv|none": 1}, where="v$|none$", dimension_numbers={"v$": "OIW"})
    assert [row.name for row in found.rows] == ["conv[0]", "conv[1]"]
    assert (found.left_out, found.rows[0].shape) == (1, (5, 4, 3))
    np.testing.assert_allclose(found.rows[1].lipschitz, only([params["conv"][1].transpose(2, 1, 0)]).lipschitz)


def test_stacked_layers_have_a_row_each():
    stacked = gaussian((2, 3, 5, 4), REAL)
    found = audit({"layers": {"w": stacked}, "v": stacked[0, 0]}, batch_axes={"layers": 2})
    assert [row.name for row in found.rows] == [*(f"layers/w[{i}][{j}]" for i in range(2) for j in range(3)), "v"]
    for row, a in zip(found.rows, [*stacked.reshape(6, 5, 4), stacked[0, 0]], strict=True):
        np.testing.assert_allclose(row.spectral_norm, np.linalg.norm(a, 2), rtol=tolerance(REAL))
    assert found.rows[-1].tied_to == "layers/w[0][0]"


def test_numerical_rank_is_of_what_was_rounded_to_the_stored_type():
    """A matrix of rank 20 stored in 16 bits has 60 singular values, of which 40 are rounding."""
    exact = prescribed(np.r_[np.linspace(2, 1, 20), np.zeros(40)], (200, 60), np.float64)
    for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16):
        for a in (exact.astype(dtype), exact.T.astype(dtype)):
            assert only([a]).numerical_rank == 20, dtype
    tiny = (exact * 2.0**-12).astype(np.float16)  # subnormal numbers
    assert only([tiny]).numerical_rank == 20
    assert only([exact * np.logspace(0, -9, 60)]).numerical_rank == 20  # columns of many sizes


def test_scales_are_exact_and_do_not_overflow():
    a = gaussian((8, 5), np.float64)
    row = only([a])
    for exponent in (1000, -1000):
        scaled = only([np.ldexp(a, exponent)])
        for field in ("spectral_norm", "nuclear_norm", "frobenius_norm", "max_norm", "induced_1_norm", "lipschitz"):
            assert getattr(scaled, field) == math.ldexp(getattr(row, field), exponent), field
        for field in ("stable_rank", "effective_rank", "numerical_rank", "cond", "energy_rank"):
            assert getattr(scaled, field) == getattr(row, field), field
    found = audit([np.eye(3) * 1e300] * 2)
    assert found.lipschitz_bound == inf
    np.testing.assert_allclose(found.log10_lipschitz_bound, 600, rtol=EXACT)


def test_entries_that_are_not_finite_and_matrices_without_size():
    bad, worse = np.eye(4), np.ones((3, 2, 2, 2))
    bad[1, 2], worse[0, 1, 1, 1] = nan, -inf
    params = {
        "a": bad,
        "b": worse,
        "c": np.zeros((4, 3)),
        "d": np.zeros((0, 5)),
        "e": np.eye(2),
        "f": np.zeros((3, 0, 2)),
    }
    rows = {row.name: row for row in audit(params).rows}
    for name, value in (("a", nan), ("b", inf)):
        row = rows[name]
        norms = (
            row.spectral_norm,
            row.nuclear_norm,
            row.frobenius_norm,
            row.max_norm,
            row.induced_1_norm,
            row.lipschitz,
        )
        np.testing.assert_array_equal(norms, value)
        np.testing.assert_array_equal((row.stable_rank, row.effective_rank, row.cond), nan)
        assert (row.numerical_rank, row.energy_rank, row.saved_parameters) == (None, None, None)
    for name in "cdf":
        row = rows[name]
        assert (row.spectral_norm, row.nuclear_norm, row.frobenius_norm, row.lipschitz) == (0, 0, 0, 0)
        assert (row.stable_rank, row.effective_rank, row.numerical_rank, row.energy_rank) == (0, 0, 0, 0)
        assert row.cond == inf
    assert rows["e"].cond == 1


def test_kernels_have_the_bound_of_the_convolution():
    """In all layouts; the ranks are those of the matrix of all other axes times the output channels."""
    kernel = gaussian((3, 2, 4, 5), np.float64)
    expected = float(jn.conv_spectral_norm(jnp.asarray(kernel), (9, 9), padding="SAME"))
    row = only([kernel])
    np.testing.assert_allclose(row.lipschitz, expected, rtol=tolerance(REAL))
    np.testing.assert_allclose(row.spectral_norm, np.linalg.norm(kernel.reshape(-1, 5), 2), rtol=EXACT)
    other = only([kernel.transpose(3, 2, 0, 1)], dimension_numbers={"0": "OIHW"})
    for field in ("lipschitz", "spectral_norm", "nuclear_norm", "effective_rank", "induced_1_norm"):
        np.testing.assert_allclose(getattr(other, field), getattr(row, field), rtol=EXACT)
    pointwise = gaussian((1, 1, 4, 5), np.complex128)
    np.testing.assert_allclose(only([pointwise]).lipschitz, np.linalg.norm(pointwise[0, 0], 2), rtol=EXACT)


def test_bounds_of_kernels_are_those_of_their_stored_entries_at_every_scale():
    """In 16 bits as in double precision of the same entries, and exact under powers of two."""
    for shape in ((3, 2, 4, 5), (1, 3, 40, 36), (1, 1, 2, 3)):
        kernel = gaussian(shape, np.float64).astype(ml_dtypes.bfloat16)
        expected = only([kernel.astype(np.float64)]).lipschitz
        assert only([kernel]).lipschitz == expected
        assert only([np.ldexp(kernel.astype(np.float64), 900)]).lipschitz == math.ldexp(expected, 900)


def test_bounds_of_kernels_with_many_channels_are_attained_on_the_grid():
    """Cholesky's test of each frequency leaves the largest norm out nowhere."""
    for kernel in (gaussian((3, 40, 50), np.float64), gaussian((2, 1, 50, 36), np.complex128)):
        k = len(kernel)
        transform = np.fft.fft(kernel, 16 * k, axis=0).reshape(16 * k, *kernel.shape[-2:])
        largest = np.linalg.norm(transform, 2, axis=(1, 2)).max()
        expected = largest / math.cos(math.pi * (k - 1) / (16 * k)) ** 0.5
        np.testing.assert_allclose(kernel_bound(kernel, 0), expected, rtol=tolerance(np.float64))


def test_tied_tensors_count_once_as_parameters_and_each_time_in_the_bound():
    a, b = 2 * np.eye(4, dtype=np.float32), np.zeros((2, 3))
    found = audit({"in": a, "out": jnp.asarray(a), "wider": a.astype(np.float64), "z": b, "zz": b, "bias": np.ones(7)})
    assert [row.tied_to for row in found.rows] == [None, "in", None, None, None]
    assert found.rows[1].frobenius_norm == 4
    assert (found.parameters, found.left_out, found.left_out_parameters) == (16 + 16 + 6 + 6, 1, 7)
    assert found.lipschitz_bound == 0
    assert audit({"in": a, "out": a}).lipschitz_bound == 4
    np.testing.assert_allclose(audit({"in": a, "out": a}).log10_lipschitz_bound, math.log10(4))


def test_trees_of_every_kind_of_leaf():
    tree = {
        "layers": [
            {"kernel": jnp.eye(3, dtype=jnp.float32), "bias": jnp.ones(3)},
            {"kernel": jnp.eye(2, dtype=jnp.bfloat16)},
        ],
        "step": 3,
        "none": None,
        "name": "model",
        "ids": np.zeros((3, 3), int),
        "key": jax.random.key(0),
    }
    rows = audit(tree).rows
    assert [(row.name, row.dtype) for row in rows] == [("layers/0/kernel", "float32"), ("layers/1/kernel", "bfloat16")]
    assert [row.name for row in audit(tree, where="s/1").rows] == ["layers/1/kernel"]
    assert [row.name for row in audit(tree, where=lambda path, leaf: len(leaf) == 3).rows] == ["layers/0/kernel"]
    assert audit({}).rows == ()
    assert audit({}).lipschitz_bound == 1


def test_bad_arguments_are_refused():
    for energy in (0, 1.5, nan):
        with pytest.raises(ValueError, match="audit: energy must be a number above 0 and at most 1"):
            audit([np.eye(2)], energy=energy)
    with pytest.raises(TypeError, match="audit: energy must be a number"):
        audit([np.eye(2)], energy="all")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"audit: params must hold concrete arrays.* at 'w'"):
        jax.jit(lambda w: audit({"w": w}).lipschitz_bound)(jnp.eye(2))
    with pytest.raises(ValueError, match="audit: where must hold regular expressions"):
        audit([np.eye(2)], where="(")
    with pytest.raises(ValueError, match="audit: 0: dimension_numbers must be a layout"):
        audit([np.ones((3, 2, 2))], dimension_numbers="OIHW")


@pytest.fixture
def checkpoint(tmp_path):
    arrays = {
        "a": gaussian((6, 4), np.float32),
        "conv": gaussian((2, 3, 3, 3), np.float32),
        "bad": np.full((2, 2), nan),
    }
    np.savez(tmp_path / "a.npz", **arrays, b=arrays["a"], zero=np.zeros((3, 2)), bias=np.ones(3))
    return arrays, str(tmp_path / "a.npz")


def strict(text):
    def refuse(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def test_command_line_reports_what_audit_finds(checkpoint, capsys):
    arrays, path = checkpoint
    assert main(["audit", path, "--json", "--layout", "HWIO"]) == 0
    out, err = capsys.readouterr()
    found = strict(out)
    rows = {row["name"]: row for row in found["tensors"]}
    assert err == ""
    assert [*rows] == ["a", "conv", "bad", "b", "zero"]
    for name in ("a", "conv"):
        expected = only({name: arrays[name]})
        assert rows[name]["cond"] == expected.cond
        assert rows[name]["lipschitz"] == expected.lipschitz
        assert tuple(rows[name]["shape"]) == expected.shape
    assert rows["b"]["tied_to"] == "a"
    assert (rows["zero"]["cond"], rows["bad"]["cond"], found["lipschitz_bound"]) == ("inf", None, None)
    assert main(["audit", path, "--where", "^[ab]$", "--energy", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "rank 50%" in out
    assert "tied to a" in out
    assert "conv" not in out
    norm = np.linalg.norm(arrays["a"].astype(np.float64), 2)
    assert f"{norm**2:.4g}, log10 {2 * math.log10(norm):.4f}" in out


def test_layouts_of_the_command_line_go_by_the_number_of_axes(checkpoint, capsys):
    arrays, path = checkpoint
    assert main(["audit", path, "--json", "--layout", "OIHW,OIW", "--where", "conv"]) == 0
    (row,) = strict(capsys.readouterr().out)["tensors"]
    assert row["lipschitz"] == only([arrays["conv"]], dimension_numbers="OIHW").lipschitz


@pytest.mark.parametrize(
    ("options", "axes"), [([], 4), (["--layout", "OIW"], 4), (["--layout", "HWIO", "--batch-axes", "c=1"], 3)]
)
def test_kernels_of_which_no_layout_is_given_are_refused_in_one_line(checkpoint, capsys, options, axes):
    assert main(["audit", checkpoint[1], *options]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert f"tensor 'conv' of shape (2, 3, 3, 3): give --layout of its {axes} axes" in err
    for word in ("OIHW for PyTorch", "HWIO for Flax", "--batch-axes", "--where"):
        assert word in err


def test_batch_axes_of_the_command_line(tmp_path, capsys):
    """Those of the first pattern found, and of all others those that are given without one."""
    arrays = {"experts": gaussian((2, 5, 4), REAL), "convs": gaussian((2, 4, 3, 3), REAL), "w": gaussian((3, 2), REAL)}
    np.savez(tmp_path / "a.npz", **arrays)  # pyright: ignore[reportArgumentType]
    options = ["--batch-axes", "0", "--batch-axes", "^exp=1", "--batch-axes", "s$=1", "--layout", "OIW"]
    assert main(["audit", str(tmp_path / "a.npz"), "--json", *options]) == 0
    rows = strict(capsys.readouterr().out)["tensors"]
    found = audit(arrays, batch_axes={"s$": 1}, dimension_numbers="OIW").rows
    assert [row["name"] for row in rows] == ["experts[0]", "experts[1]", "convs[0]", "convs[1]", "w"]
    assert {row["name"]: row["lipschitz"] for row in rows} == {row.name: row.lipschitz for row in found}
    assert main(["audit", str(tmp_path / "a.npz"), "--json", "--batch-axes", "1", "--where", "exp|w"]) == 0
    found = strict(capsys.readouterr().out)
    assert ([row["name"] for row in found["tensors"]], found["left_out"]) == (["experts[0]", "experts[1]"], 2)


def test_a_stack_is_read_once_and_kept_no_longer_than_its_rows():
    alive = weakref.WeakSet()

    def reader(name):
        def read():
            assert not alive, name
            a = Kept((2, 3, 2, 2))
            a[...] = gaussian(a.shape, np.float64)
            alive.add(a)
            reads.append(name)
            return a

        return read

    class Kept(np.ndarray):
        __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]

    reads: list[str] = []
    tensors = [(Tensor(name, (2, 3, 2, 2), np.dtype(float), reader(name)), None) for name in "ab"]
    found = audit_tensors(tensors, None, 2, 0.99, lambda tensor, axes: None, False)
    assert (len(found.rows), reads) == (12, ["a", "b"])
    assert not alive


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--energy", "2"], "energy must be a number above 0"),
        (["--energy", "much"], "invalid float value"),
        (["--where", "("], "where must hold regular expressions"),
        (["--layout", "OI"], "--layout"),
        (["--batch-axes", "conv=-1"], "--batch-axes must be N or REGEX=N"),
        (["--batch-axes", "conv"], "--batch-axes must be N or REGEX=N"),
        (["--batch-axes", "1", "--batch-axes", "2"], "each REGEX once, got '2'"),
        (["--batch-axes", "(=1"], "batch_axes must hold regular expressions"),
        (["--plot", "a.pdf"], ".png"),
        (["--plot", "nowhere/a.png"], "no such directory"),
        (["--colour"], "unrecognized arguments"),
    ],
)
def test_wrong_options_are_refused_in_one_line(checkpoint, capsys, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    assert main(["audit", checkpoint[1], *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert words in err
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "audit" in capsys.readouterr().err


def test_without_matplotlib_a_plot_is_refused(checkpoint, capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["audit", checkpoint[1], "--plot", str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err == "jaxnorms audit: the plot needs matplotlib, which is not installed\n"


@pytest.mark.parametrize("count", [0, 3, 12])
def test_the_plot_is_a_png(tmp_path, count):
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib")
    rng = np.random.default_rng(0)
    params = {f"w{i}_$": rng.standard_normal((30, 20)) for i in range(count)}
    audit({**params, "zero": np.zeros((2, 2)), "bad": np.full((2, 2), nan)}).plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_progress_is_erased_at_the_end(capsys):
    audit([np.eye(2), np.eye(3)], progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "1/2 1" in err
    assert err.endswith("\r\x1b[K")
