"""A random projection of the change, of the same size for modules of any shape."""

import numpy as np

from plumbline.ablation.linalg.moments import entries
from plumbline.ablation.linalg.projections import gaussian
from plumbline.ablation.representations.interface import representation

SIDE = 16


@representation(width=SIDE * SIDE, views=("product",))
def sketch(stack: np.ndarray) -> np.ndarray:
    """Qᵀ W P for fixed Gaussian Q (m × 16) and P (n × 16), row by row; (R, m, n) -> (R, 256).

    Preserves distances between changes on average (Johnson and Lindenstrauss 1984), with a width that does not depend
    on the module.
    """
    outputs, inputs = gaussian(stack.shape[1], SIDE), gaussian(stack.shape[2], SIDE, stream=1)
    return entries(np.matmul(outputs.T, np.matmul(stack, inputs)))


@sketch.of_product
def _(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    outputs, inputs = gaussian(up.shape[-2], SIDE), gaussian(down.shape[-1], SIDE, stream=1)
    return entries(np.matmul(np.matmul(outputs.T, up), np.matmul(down, inputs)))
