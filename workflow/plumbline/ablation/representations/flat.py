"""The weights themselves, as a baseline."""

import numpy as np

from plumbline.ablation.linalg.moments import entries
from plumbline.ablation.representations.interface import representation


@representation(width=lambda rows, columns: rows * columns)
def flat(stack: np.ndarray) -> np.ndarray:
    """All entries, row by row; (R, m, n) -> (R, m·n)."""
    return entries(stack)
