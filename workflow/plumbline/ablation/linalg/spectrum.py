"""Singular values of stacks of matrices and of products given by their factors."""

from typing import cast

import numpy as np

from plumbline.ablation.linalg.blocks import in_factor_blocks
from plumbline.ablation.linalg.moments import entries, gram

RANK_TOLERANCE = 1e-10
"""Singular values below this fraction of the largest are rounding and set to zero."""
GRAM_LIMIT = 1e-6
"""The Gram route is used while σ_r² is above this fraction of tr(G_B) tr(G_A): its σ are then within about 1e-9."""


def singular_values(stack: np.ndarray) -> np.ndarray:
    """Singular values (R, min(m, n)) in float64, falling, of `stack` (R, m, n). Long ones go by QR."""
    _, m, n = stack.shape
    if min(m, n) == 1:
        values = entries(stack).astype(np.float64)
        return np.sqrt(np.vecdot(values, values))[:, None]
    tall = (stack if m >= n else stack.mT).astype(np.float64)
    core = _triangle(tall) if max(m, n) >= 2 * min(m, n) else tall
    return _without_rounding(np.linalg.svdvals(core))


def product_singular_values(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Singular values (R, min(m, n, r)) in float64 of up · down, `up` (R, m, r), `down` (R, r, n).

    By Gram matrices: with G_B = upᵀup = VΛVᵀ and G_A = down downᵀ, σ² are the eigenvalues of Λ^½Vᵀ G_A VΛ^½. This
    halves the number of correct digits of small σ, so products with widely spread σ use the QR cores of the factors.
    """
    r = up.shape[-1]
    if r > min(up.shape[-2], down.shape[-1]):
        return _by_qr_cores(up, down)
    grams = in_factor_blocks(_grams, up, down)
    left, right = grams[:, 0], grams[:, 1]
    if r == 1:
        return np.sqrt(left[..., 0]) * np.sqrt(right[..., 0])
    scale, axes = np.linalg.eigh(left)
    half = np.sqrt(np.maximum(scale, 0.0))[:, :, None] * axes.mT
    squares = np.linalg.eigvalsh(np.matmul(np.matmul(half, right), half.mT))[:, ::-1]
    size = np.trace(left, axis1=1, axis2=2) * np.trace(right, axis1=1, axis2=2)
    sigma = np.sqrt(np.maximum(squares, 0.0))
    spread = np.flatnonzero(~(squares[:, -1] > GRAM_LIMIT * size))
    if len(spread):
        sigma[spread] = _by_qr_cores(up[spread], down[spread])
    return sigma


def _grams(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    return np.stack([np.matmul(up.mT, up.copy()), gram(down)], axis=1)


def _by_qr_cores(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    return _without_rounding(np.linalg.svdvals(np.matmul(_triangle(up), _triangle(down.mT).mT)))


def _triangle(stack: np.ndarray) -> np.ndarray:
    return cast(np.ndarray, np.linalg.qr(stack, mode="r"))


def _without_rounding(sigma: np.ndarray) -> np.ndarray:
    sigma[sigma <= RANK_TOLERANCE * sigma[:, :1]] = 0.0
    return sigma
