import pytest
import torch

from plumbline.throughput.compression.svd import Moments, plain, rank_of, ridge, whitened


def matrix(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def square_root(symmetric):
    values, vectors = torch.linalg.eigh(symmetric)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT


def truncated(weight, rank):
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank], values


def moments(rows, columns, tokens, seed=0):
    x, g = matrix(tokens, columns, seed) @ matrix(columns, columns, 1), matrix(tokens, rows, 2) @ matrix(rows, rows, 3)
    return Moments(x.mT @ x, g.mT @ g, tokens)


@pytest.mark.parametrize(
    ("ratio", "rows", "columns", "rank"),
    [
        (0.7, 100, 100, 35),
        (0.8, 64, 64, 25),
        (0.2, 64, 176, 9),
        (0.01, 8, 8, 1),
        (1.0, 30, 20, 12),
        (0.57, 200, 200, 57),
    ],
)
def test_rank_keeps_the_ratio_of_parameters_rounded_down(ratio, rows, columns, rank):
    assert rank_of(ratio, rows, columns) == rank
    assert rank == 1 or rank * (rows + columns) <= ratio * rows * columns + 1e-9
    assert (rank + 1) * (rows + columns) > ratio * rows * columns


@pytest.mark.parametrize("shape", [(12, 7), (7, 12)])
@pytest.mark.parametrize("rank", [1, 4, 7])
def test_plain_is_the_truncated_svd_and_its_error_the_discarded_singular_values(shape, rank):
    weight = matrix(*shape, 0)
    expected, values = truncated(weight, rank)
    found = plain(weight, rank)
    torch.testing.assert_close(found.second @ found.first, expected)
    assert found.first.shape == (rank, shape[1])
    assert found.error == pytest.approx(float(values[rank:].square().sum().sqrt()), abs=1e-12)
    assert found.error == pytest.approx(found.discarded, abs=1e-12)
    assert found.norm == pytest.approx(float(weight.norm()))


@pytest.mark.parametrize("shape", [(12, 7), (7, 12)])
@pytest.mark.parametrize("rank", [1, 4, 7])
def test_whitened_is_optimal_in_its_norm_by_another_square_root(shape, rank):
    """Symmetric roots by eigenvalues, inverted, in place of Cholesky factors and a projection."""
    weight, seen = matrix(*shape, 0), moments(*shape, tokens=50)
    c = (seen.inputs + ridge(seen.inputs, 50) * torch.eye(shape[1], dtype=torch.float64)) / 50
    g = (seen.gradients + ridge(seen.gradients, 50) * torch.eye(shape[0], dtype=torch.float64)) / 50
    best, values = truncated(square_root(g) @ weight @ square_root(c), rank)
    expected = torch.linalg.inv(square_root(g)) @ best @ torch.linalg.inv(square_root(c))
    found = whitened(weight, seen, rank)
    torch.testing.assert_close(found.second @ found.first, expected, rtol=1e-8, atol=1e-8)
    assert found.error == pytest.approx(float(values[rank:].square().sum().sqrt()), rel=1e-9, abs=1e-9)
    assert found.error == pytest.approx(found.discarded, rel=1e-9, abs=1e-9)
    assert found.norm == pytest.approx(float(values.square().sum().sqrt()), rel=1e-9)


def test_whitened_error_is_the_gradient_weighted_error_of_the_outputs():
    """Σ over pairs of tokens of (gᵀ (W − M) x)², over every pair, with a ridge of a thousandth."""
    tokens = 4000
    x, g = matrix(tokens, 5, 0), matrix(tokens, 6, 1)
    weight = matrix(6, 5, 2)
    found = whitened(weight, Moments(x.mT @ x, g.mT @ g, tokens), 2)
    lacking = g @ (weight - found.second @ found.first) @ x.mT
    assert found.error == pytest.approx(float(lacking.norm()) / tokens, rel=4e-3)


def test_whitened_loses_less_than_plain_where_it_counts():
    weight, seen = matrix(20, 15, 0), moments(20, 15, tokens=200)
    g, c = square_root(seen.gradients), square_root(seen.inputs)
    lost = [
        float((g @ (weight - made.second @ made.first) @ c).norm())
        for made in (whitened(weight, seen, 5), plain(weight, 5))
    ]
    assert lost[0] < 0.8 * lost[1]


def test_few_tokens_or_none_still_give_factors():
    weight = matrix(12, 9, 0)
    found = whitened(weight, moments(12, 9, tokens=3), 4)
    assert found.error == pytest.approx(found.discarded, rel=1e-6)
    unseen = whitened(weight, Moments(torch.zeros(9, 9).double(), torch.zeros(12, 12).double(), 0), 4)
    expected, _ = truncated(weight, 4)
    torch.testing.assert_close(unseen.second @ unseen.first, expected)


def test_factors_fit_into_half_precision_though_gradients_are_tiny():
    seen = moments(12, 9, tokens=50)
    found = whitened(matrix(12, 9, 0), seen._replace(gradients=seen.gradients * 1e-16), 4)
    for part in (found.first, found.second):
        torch.testing.assert_close(part.half().double(), part, rtol=2e-3, atol=1e-6)
        assert 1e-3 < float(part.abs().max()) < 1e3
