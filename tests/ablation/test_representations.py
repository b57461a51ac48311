from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.ablation.linalg.order_statistics import quantiles
from plumbline.ablation.representations.interface import Representation, load, names
from plumbline.core.errors import UserError

FACTOR = [name for name in names() if "factor" in load(name).views]
LEVELS = [1, 5, 10, 25, 50, 75, 90, 95, 99]
sizes = st.integers(1, 24)


def reference(name: str, w: np.ndarray) -> np.ndarray:
    """The definition of a representation for one dense float64 matrix, by plain numpy and scipy."""
    x, tiny = w.ravel(), np.finfo(float).tiny
    sigma = np.linalg.svd(w, compute_uv=False)
    fourier = np.abs(np.fft.fft2(w)).ravel()
    top = np.pad(np.sort(fourier)[::-1][:10], (0, max(0, 10 - x.size)))
    if name == "simple_stats":
        return np.array([np.linalg.norm(w), x.mean(), x.std(), x.max(), x.min()])
    if name == "rank_based":
        p = np.percentile(x, LEVELS)
        return np.array([*p, p[5] - p[3], p[8] - p[0]])
    if name == "stats":
        shape = [scipy.stats.skew(x), scipy.stats.kurtosis(x, fisher=False)]
        return np.array([x.mean(), x.std(), np.median(x), x.min(), x.max(), *shape])
    if name == "distribution":
        q = np.percentile(x, LEVELS[1:-1])
        spread = [q[4] - q[2], np.abs(x - x.mean()).mean(), x.std() / abs(x.mean())]
        return np.array([*q, *spread, scipy.stats.skew(x), scipy.stats.kurtosis(x, fisher=False)])
    if name == "matrix_norms":
        fro, nuc, two = np.linalg.norm(w), np.linalg.norm(w, "nuc"), np.linalg.norm(w, 2)
        return np.array([fro, nuc, two, np.linalg.norm(w, 1), np.linalg.norm(w, np.inf), nuc / fro, two / fro])
    if name == "spectral":
        sigma = sigma[sigma > 1e-10 * sigma[0]]
        share = sigma / sigma.sum()
        ten = np.pad(sigma[:10], (0, max(0, 10 - len(sigma))))
        gaps = [(a - b) / a if a > 0 else 0.0 for a, b in pairwise(ten)]
        condition = ten[0] / ten[ten > 0].min()
        return np.array([*ten, *(ten / sigma.sum()), *gaps, -(share * np.log(share)).sum(), condition, sigma.sum()])
    if name == "frequency":
        share = (top**2).sum() / max((fourier**2).sum(), tiny)
        return np.array([*top, fourier.mean(), fourier.std(), fourier.max(), share])
    if name == "info_theoretic":
        share = np.histogram(x, 50)[0] / x.size
        entropy = -sum(p * np.log(p) for p in share if p > 0)
        return np.array([entropy, entropy / np.log(50)])
    if name == "flat":
        return x
    if name == "energies":
        return np.concatenate([(w**2).sum(1), (w**2).sum(0), w.sum(1), w.sum(0)])
    raise KeyError(name)


def assert_close(found: np.ndarray, expected: np.ndarray, relative: float) -> None:
    scale = np.abs(expected).max(initial=0.0)
    np.testing.assert_allclose(found, expected, rtol=relative, atol=relative * scale)


def factors(m: int, r: int, n: int, seed: int, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, m, r)), rng.standard_normal((count, r, n))


def gauge(up: np.ndarray, down: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(B, A) -> (B G, G⁻¹ A) with a random G of condition number 10."""
    rng, r = np.random.default_rng(seed), up.shape[-1]
    left, right = (np.linalg.qr(rng.standard_normal((r, r)))[0] for _ in range(2))
    g = left * np.geomspace(1, 10, r) @ right
    return up @ g, np.linalg.solve(g, down)


@pytest.mark.parametrize("name", [n for n in names() if n not in ("probes", "sketch", "tokens")])
@settings(max_examples=25, deadline=None)
@given(m=sizes, n=sizes, seed=st.integers(0, 2**20))
def test_dense_features_are_those_of_their_definition(name: str, m: int, n: int, seed: int) -> None:
    stack = np.random.default_rng(seed).standard_normal((2, m, n))
    if m * n == 1:
        return  # scipy's skewness of one value is not a number; finiteness is promised elsewhere
    expected = np.stack([reference(name, w) for w in stack])
    assert_close(load(name)(stack), expected, 1e-9)


@pytest.mark.parametrize("name", [n for n in names() if n not in ("probes", "sketch", "tokens")])
@pytest.mark.parametrize("r", [1, 2, 4, 8])
@pytest.mark.parametrize(("m", "n"), [(40, 24), (24, 64), (1, 9), (9, 1), (5, 6)])
def test_product_features_are_those_of_the_dense_product(name: str, r: int, m: int, n: int) -> None:
    up, down = factors(m, r, n, seed=r * m + n)
    expected = np.stack([reference(name, w) for w in up @ down])
    assert_close(load(name).product(up, down), expected, 1e-9)


@pytest.mark.parametrize("name", names())
@settings(max_examples=20, deadline=None)
@given(m=sizes, n=sizes, r=st.integers(1, 8), seed=st.integers(0, 2**20))
def test_exact_route_agrees_with_the_dense_one(name: str, m: int, n: int, r: int, seed: int) -> None:
    represent = load(name)
    up, down = factors(m, r, n, seed)
    found = represent.product(up, down)
    assert found.shape == (3, represent.width(m, n))
    for each, expected in zip(found, represent(up @ down), strict=True):
        assert_close(each, expected, 1e-8)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("r", [1, 2, 4, 8])
def test_product_features_do_not_change_with_the_gauge_of_the_factors(name: str, r: int) -> None:
    up, down = factors(48, r, 32, seed=r, count=8)
    here, there = load(name).product(up, down), load(name).product(*gauge(up, down, seed=r))
    drift = np.linalg.norm(here - there, axis=-1) / np.linalg.norm(here, axis=-1)
    assert drift.max() <= 1e-8
    assert_close(there, here, 1e-8)


@pytest.mark.parametrize("name", FACTOR)
@pytest.mark.parametrize("shape", [(1, 320), (1280, 1), (1, 768), (4, 96)])
def test_float32_features_are_near_those_of_float64(name: str, shape: tuple[int, int]) -> None:
    stack = (0.02 * np.random.default_rng(3).standard_normal((32, *shape))).astype(np.float32)
    expected = load(name)(stack.astype(np.float64))
    scale = np.abs(expected).max(axis=0)
    assert (np.abs(load(name)(stack) - expected) <= 1e-5 * scale).all()


@pytest.mark.parametrize("name", FACTOR)
@pytest.mark.parametrize("shape", [(1, 7), (320, 1), (1, 640), (1, 1280), (4, 32), (32, 32)])
def test_factor_features_are_the_same_bits_however_rows_are_chunked(name: str, shape: tuple[int, int]) -> None:
    stack = np.random.default_rng(5).standard_normal((67, *shape)).astype(np.float32)
    whole = load(name)(stack)
    for chunk in (1, 7):
        parts = [load(name)(stack[start : start + chunk]) for start in range(0, len(stack), chunk)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("shape", [(32, 1, 32), (20, 4, 33), (5, 8, 6), (1, 2, 9)])
def test_product_features_are_the_same_bits_however_rows_are_chunked(name: str, shape: tuple[int, int, int]) -> None:
    up, down = factors(*shape, seed=7, count=67)
    whole = load(name).product(up, down)
    for chunk in (1, 7):
        slices = [slice(start, start + chunk) for start in range(0, len(up), chunk)]
        parts = [load(name).product(up[rows], down[rows]) for rows in slices]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("name", names())
@settings(max_examples=20, deadline=None)
@given(
    m=sizes,
    n=sizes,
    r=st.integers(1, 8),
    value=st.sampled_from([0.0, 1.0, 0.1, -1e-3, 1e-20, 1e15]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_constant_matrices_have_finite_features(name: str, m: int, n: int, r: int, value: float, dtype: type) -> None:
    represent = load(name)
    assert np.isfinite(represent(np.full((2, m, n), value, dtype))).all()
    assert np.isfinite(represent.product(np.full((2, m, r), value), np.full((2, r, n), 0.3))).all()


@pytest.mark.parametrize("name", ["stats", "distribution", "info_theoretic", "simple_stats"])
@pytest.mark.parametrize("r", [1, 3])
def test_a_constant_product_is_constant_in_spite_of_rounding(name: str, r: int) -> None:
    up, down = np.full((1, 20, r), 0.1), np.full((1, r, 30), 0.7)
    here, there = load(name).product(up, down), load(name).product(*gauge(up, down, seed=1))
    np.testing.assert_allclose(there, here, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", names())
def test_a_zero_product_has_zero_features(name: str) -> None:
    up, down = factors(6, 2, 5, seed=0)
    assert not load(name).product(np.zeros_like(up), down).any()


@pytest.mark.parametrize("name", FACTOR)
def test_tiny_weights_keep_their_scale_free_features(name: str) -> None:
    stack = np.random.default_rng(0).standard_normal((4, 1, 50)).astype(np.float32)
    here, there = load(name)(stack), load(name)(stack * np.float32(2.0**-80))
    free = {"stats": [5, 6], "distribution": [9, 10, 11], "matrix_norms": [5, 6], "frequency": [13],
            "info_theoretic": [0, 1]}.get(name, [])  # fmt: skip
    np.testing.assert_allclose(there[:, free], here[:, free], rtol=1e-4)


def test_singular_values_keep_their_digits_when_the_factors_are_badly_conditioned() -> None:
    rng = np.random.default_rng(2)
    left, right = (np.linalg.qr(rng.standard_normal((60, 4)))[0] for _ in range(2))
    sigma = np.array([1.0, 1e-2, 1e-5, 1e-8])
    found = load("spectral").product((left * sigma)[None], right.T[None])[0, :4]
    np.testing.assert_allclose(found, sigma, rtol=1e-7)


@pytest.mark.parametrize("name", ["rank_based", "distribution", "stats"])
def test_order_statistics_of_long_rows_are_those_of_numpy(name: str) -> None:
    up, down = factors(130, 2, 140, seed=4, count=2)
    expected = np.stack([reference(name, w) for w in up @ down])
    assert_close(load(name).product(up, down), expected, 1e-9)


@pytest.mark.parametrize("k", [512, 513, 640, 641, 768, 769, 1024, 1025, 1279, 1280, 1281])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantiles_are_those_of_numpy_whatever_the_order_of_the_values(k: int, dtype: type) -> None:
    rng, levels = np.random.default_rng(k), np.linspace(0, 1, 41)
    drawn = rng.standard_normal(k)
    rising = np.sort(drawn)
    folded = np.concatenate([rising[::2], rising[1::2][::-1]])
    steps = np.repeat(rng.standard_normal(5), -(-k // 5))[:k]
    ties = rng.integers(0, 3, k)
    rows = np.stack([drawn, rising, rising[::-1], folded, steps, ties, np.roll(rising, 300)]).astype(dtype)
    np.testing.assert_allclose(quantiles(rows, levels), np.quantile(rows.astype(float), levels, axis=-1).T, rtol=1e-12)


@pytest.mark.parametrize("shape", [(600, 3), (600, 4), (3, 600), (4, 601), (40, 40)])
def test_frequencies_of_large_matrices_are_those_of_the_whole_transform(shape: tuple[int, int]) -> None:
    stack = np.random.default_rng(6).standard_normal((2, *shape))
    assert_close(load("frequency")(stack), np.stack([reference("frequency", w) for w in stack]), 1e-9)


def test_kurtosis_is_not_excess() -> None:
    stack = np.random.default_rng(0).standard_normal((1, 200, 200))
    assert load("stats")(stack)[0, 6] == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(("low", "high"), [(0, 50), (0, 100), (0, 30), (-25, 25), (0, 49), (3, 4)])
def test_histogram_puts_what_lies_on_an_edge_into_the_upper_bin(low: int, high: int) -> None:
    values = np.arange(low, high + 1)
    bins = np.minimum(50 * (values - low) // (high - low), 49)
    share = np.bincount(bins) / len(values)
    expected = -sum(p * np.log(p) for p in share if p > 0)
    assert load("info_theoretic")(values[None, None, :].astype(np.float32))[0, 0] == pytest.approx(expected)


def test_unknown_representation_error_lists_what_exists() -> None:
    with pytest.raises(UserError, match="matrix_norms"):
        load("matrix_norm")


def test_representations_from_elsewhere_are_named_by_a_dotted_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_lab_features.py").write_text("def curvature(stack):\n    return stack[..., 0, :2] ** 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    curvature = load("my_lab_features:curvature")
    assert isinstance(curvature, Representation)
    assert curvature.width(3, 4) == 2
    np.testing.assert_allclose(curvature(np.full((5, 3, 4), 2.0)), np.full((5, 2), 4.0))
    np.testing.assert_allclose(curvature.product(np.ones((5, 3, 1)), np.full((5, 1, 4), 2.0)), np.full((5, 2), 4.0))


@pytest.mark.parametrize("path", ["no_such_lab:curvature", "math:no_such", "math:pi"])
def test_a_dotted_path_to_nothing_is_reported(path: str) -> None:
    with pytest.raises(UserError, match="representation"):
        load(path)


def test_every_file_of_the_folder_holds_the_representation_of_its_name() -> None:
    assert len(names()) >= 12
    for name in names():
        assert load(name).name == name
