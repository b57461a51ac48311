"""Canonical tokens, which the classifier `transformer` reads."""

import numpy as np

from plumbline.ablation.linalg import canonical
from plumbline.ablation.representations.interface import representation


@representation(width=canonical.COMPONENTS * canonical.TOKEN, views=("product",))
def tokens(stack: np.ndarray) -> np.ndarray:
    """One token a singular component: σ, √σ u and √σ v with signs fixed, u and v projected to 32 numbers each.

    (R, m, n) -> (R, 4 · 65): the four largest components (W2T, arXiv 2603.15990).
    """
    return canonical.tokens(*canonical.components(stack))


@tokens.of_product
def _(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    return canonical.tokens(*canonical.product_components(up, down))
