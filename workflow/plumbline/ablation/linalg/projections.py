"""Fixed random directions."""

from functools import cache

import numpy as np


@cache
def gaussian(size: int, count: int, stream: int = 0) -> np.ndarray:
    """`count` Gaussian directions of `size` entries, (size, count), of variance 1/count; read-only.

    They depend only on the arguments. Different streams are independent.
    """
    directions = np.random.default_rng([size, count, stream]).standard_normal((size, count)) / np.sqrt(count)
    directions.flags.writeable = False
    return directions
