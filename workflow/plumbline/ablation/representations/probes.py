"""Responses of the change to fixed random inputs and outputs."""

import numpy as np

from plumbline.ablation.linalg.moments import entries
from plumbline.ablation.linalg.projections import gaussian
from plumbline.ablation.representations.interface import representation

PROBES = 8


@representation(width=lambda rows, columns: PROBES * (rows + columns), views=("product",))
def probes(stack: np.ndarray) -> np.ndarray:
    """W p for 8 fixed Gaussian inputs p, then Wᵀ q for 8 fixed Gaussian outputs q; (R, m, n) -> (R, 8m + 8n)."""
    inputs, outputs = gaussian(stack.shape[2], PROBES), gaussian(stack.shape[1], PROBES)
    return _features(np.matmul(stack, inputs), np.matmul(outputs.T, stack))


@probes.of_product
def _(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    inputs, outputs = gaussian(down.shape[-1], PROBES), gaussian(up.shape[-2], PROBES)
    return _features(np.matmul(up, np.matmul(down, inputs)), np.matmul(np.matmul(outputs.T, up), down))


def _features(of_inputs: np.ndarray, of_outputs: np.ndarray) -> np.ndarray:
    return np.concatenate([entries(of_inputs), entries(of_outputs)], axis=-1)
