"""The canonical factors of a product: one (σ, u, v) a component, the same for every pair of factors of the product.

W2T (arXiv 2603.15990) makes its tokens in this way: QR of both factors, then an SVD of the small core.
"""

from typing import cast

import numpy as np

from plumbline.ablation.linalg.projections import gaussian
from plumbline.ablation.linalg.spectrum import RANK_TOLERANCE

COMPONENTS = 4
"""Components of a matrix that have a token, by falling σ; of a matrix of lower rank the others are zero."""
DIRECTION = 32
"""Numbers that a direction, u or v, takes in a token: its products with fixed Gaussian vectors."""
TOKEN = 1 + 2 * DIRECTION
"""Numbers in a token."""
TIE = 1e-6
"""Entries of a direction whose sizes are this near to the largest, relative to it, all count as the largest."""

Components = tuple[np.ndarray, np.ndarray, np.ndarray]
"""u (R, m, k), σ (R, k) falling, v (R, n, k)."""


def product_components(up: np.ndarray, down: np.ndarray) -> Components:
    """The components of up · down; `up` (R, m, r), `down` (R, r, n), float64; k = min(m, n, r).

    They do not change under (up, down) -> (up G, G⁻¹ down). See `with_fixed_signs` for what an SVD leaves open.
    """
    left, left_core = np.linalg.qr(up)
    right, right_core = np.linalg.qr(down.mT)
    u, sigma, v = np.linalg.svd(np.matmul(left_core, right_core.mT), full_matrices=False)
    return with_fixed_signs(np.matmul(left, u), sigma, np.matmul(right, v.mT))


def components(stack: np.ndarray) -> Components:
    """The components of dense matrices (R, m, n); k = min(m, n)."""
    u, sigma, v = np.linalg.svd(stack.astype(np.float64), full_matrices=False)
    return with_fixed_signs(u, sigma, v.mT)


def with_fixed_signs(u: np.ndarray, sigma: np.ndarray, v: np.ndarray) -> Components:
    """Both directions of a component turned so that the largest entry of u is positive; rounding is set to zero.

    Of several largest entries the first one decides, so that rounding does not. Components of equal σ span a plane in
    which an SVD may choose any pair; trained adapters have none.
    """
    sigma = np.where(sigma <= RANK_TOLERANCE * sigma[:, :1], 0.0, sigma)
    sizes = np.abs(u)
    first = (sizes >= (1 - TIE) * sizes.max(axis=1, keepdims=True)).argmax(axis=1)
    sign = np.where(np.take_along_axis(u, first[:, None], axis=1) < 0, -1.0, 1.0)
    return u * sign, sigma, v * sign


def tokens(u: np.ndarray, sigma: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(R, COMPONENTS · TOKEN): of each component σ, then √σ u and √σ v, projected to DIRECTION numbers each."""
    count = min(COMPONENTS, sigma.shape[1])
    weights = np.sqrt(sigma[:, :count, None])
    sides = [weights * np.matmul(side[:, :, :count].mT, gaussian(side.shape[1], DIRECTION)) for side in (u, v)]
    found = np.zeros((len(sigma), COMPONENTS, TOKEN))
    found[:, :count] = np.concatenate([sigma[:, :count, None], *sides], axis=2)
    return cast(np.ndarray, found.reshape(len(sigma), -1))
