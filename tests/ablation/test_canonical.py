"""Canonical components: the same for every pair of factors of one product, up to rounding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.ablation.linalg.canonical import (
    COMPONENTS,
    DIRECTION,
    TOKEN,
    components,
    product_components,
    tokens,
    with_fixed_signs,
)
from plumbline.ablation.linalg.projections import gaussian

ROWS, M, N = 20, 12, 9


def factors(rank: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    random = np.random.default_rng(seed)
    return random.standard_normal((ROWS, M, rank)), random.standard_normal((ROWS, rank, N)), random


@given(rank=st.integers(1, 6), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_tokens_do_not_change_with_the_factorization(rank, seed):
    up, down, random = factors(rank, seed)
    left, right = (np.linalg.qr(random.standard_normal((ROWS, rank, rank)))[0] for _ in range(2))
    mix = left * random.uniform(0.5, 2, (ROWS, 1, rank)) * random.choice([-1, 1], (ROWS, 1, rank)) @ right
    before = tokens(*product_components(up, down))
    after = tokens(*product_components(up @ mix, np.linalg.solve(mix, down)))
    gaps = np.diff(np.linalg.svd(up @ down)[1][:, : rank + 1 if rank < N else None], axis=1)
    distinct = np.abs(gaps[:, :COMPONENTS]).min(axis=1) > 1e-3  # of two equal σ no one can say which is first
    assert distinct.sum() > ROWS / 2
    np.testing.assert_allclose(after[distinct], before[distinct], atol=1e-8)


@pytest.mark.parametrize("rank", [1, 3, 9])
def test_components_make_the_product_again_and_match_those_of_the_dense_matrix(rank):
    up, down, _ = factors(rank, 3)
    u, sigma, v = product_components(up, down)
    np.testing.assert_allclose(np.einsum("rmk,rk,rnk->rmn", u, sigma, v), up @ down, atol=1e-12)
    dense = components(up @ down)
    np.testing.assert_allclose(tokens(u, sigma, v), tokens(*dense), atol=1e-7)


def test_sign_is_that_of_the_first_of_the_largest_entries_whatever_rounding_does():
    u = np.array([0.5, -0.5 - 1e-12, 0.5, -0.5])
    v, sigma = np.array([0.6, -0.8]), np.array([[2.0]])
    for turned in (1, -1):
        for rounding in (0, 1e-12, -1e-12):
            found, _, other = with_fixed_signs(turned * (u + rounding)[None, :, None], sigma, turned * v[None, :, None])
            np.testing.assert_allclose(found[0, :, 0], u, atol=1e-11)
            np.testing.assert_allclose(other[0, :, 0], v)


def test_adapter_of_low_rank_has_zeros_for_the_components_it_lacks():
    up, down, _ = factors(2, 4)
    made = tokens(*product_components(up, down)).reshape(ROWS, COMPONENTS, TOKEN)
    assert (made[:, 2:] == 0).all()
    assert (made[:, 0, 0] > made[:, 1, 0]).all()
    assert (made[:, 1, 0] > 0).all()
    assert (tokens(*product_components(0 * up, down)) == 0).all()


def test_tokens_of_a_matrix_are_those_of_a_plain_loop():
    up, down, _ = factors(3, 5)
    made = tokens(*product_components(up, down)).reshape(ROWS, COMPONENTS, TOKEN)
    for row in range(ROWS):
        u, sigma, vt = np.linalg.svd(up[row] @ down[row])
        for k in range(3):
            sign = np.sign(u[np.argmax(np.abs(u[:, k])), k])
            sides = [
                np.sqrt(sigma[k]) * sign * direction @ gaussian(len(direction), DIRECTION)
                for direction in (u[:, k], vt[k])
            ]
            np.testing.assert_allclose(made[row, k], np.concatenate([[sigma[k]], *sides]), atol=1e-9)
