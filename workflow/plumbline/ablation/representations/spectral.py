"""The leading singular values, their shares and gaps."""

import numpy as np
import scipy.special

from plumbline.ablation.linalg.moments import ratio, total
from plumbline.ablation.linalg.spectrum import RANK_TOLERANCE, product_singular_values, singular_values
from plumbline.ablation.representations.interface import representation

TOP = 10


@representation(width=32)
def spectral(stack: np.ndarray) -> np.ndarray:
    """Top ten σ, their shares of Σσ, nine relative gaps, entropy of the shares, condition number, nuclear norm.

    (R, m, n) -> (R, 32). σ are zero-padded to ten. A gap is (σ_i − σ_{i+1}) / σ_i, 0 where σ_i is 0. The entropy
    (nats) is over all σ. The condition number is σ₁ over the smallest non-zero σ of the top ten, so that it is finite
    and informative below rank ten; it is 0 for a zero matrix.
    """
    return _features(singular_values(stack))


@spectral.of_product
def _(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    return _features(product_singular_values(up, down))


def _features(sigma: np.ndarray) -> np.ndarray:
    nuclear = total(sigma)
    top = np.zeros((len(sigma), TOP))
    top[:, : sigma.shape[-1]] = sigma[:, :TOP]
    entropy = total(scipy.special.entr(ratio(sigma, nuclear[:, None])))
    positive = np.where(top > RANK_TOLERANCE * top[:, :1], top, np.inf)
    condition = np.where(nuclear > 0, top[:, 0] / positive.min(axis=-1), 0.0)
    gaps = ratio(top[:, :-1] - top[:, 1:], top[:, :-1])
    return np.concatenate(
        [top, ratio(top, nuclear[:, None]), gaps, np.stack([entropy, condition, nuclear], axis=-1)], axis=-1
    )
