"""A representation maps stacks of matrices to a fixed number of features per matrix."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from plumbline.core import registry
from plumbline.core.errors import UserError

HERE = Path(__file__).parent
View = Literal["factor", "product"]
Dense = Callable[[np.ndarray], np.ndarray]
FromFactors = Callable[[np.ndarray, np.ndarray], np.ndarray]

STACK_VALUES = 1 << 20
"""Number of stored entries processed at a time: large, because the cost per call outweighs the cost per entry.
Functions that pass over the entries more than once use smaller blocks, which stay in cache."""
BLOCK_VALUES = 3 << 14
"""Number of matrix entries processed at a time: with their temporaries they stay in a core's L2 cache."""
FACTOR_VALUES = 3 << 14
"""Number of entries of `up` and `down` processed at a time by exact routes, for the same reason."""


class Representation:
    """A named map (…, m, n) -> (…, width), made by the decorator `representation`.

    `views`: the views it supports, "factor" (each stored tensor by itself) or "product" (ΔW = up · down).
    """

    def __init__(
        self,
        dense: Dense,
        *,
        name: str,
        width: int | Callable[[int, int], int],
        views: tuple[View, ...] = ("factor", "product"),
    ) -> None:
        self.name = name
        self.views = views
        self._dense = dense
        self._width = width
        self._from_factors: FromFactors | None = None

    def of_product(self, from_factors: FromFactors) -> FromFactors:
        """Decorator: the exact route from `up` (R, m, r) and `down` (R, r, n), float64, to (R, width)."""
        self._from_factors = from_factors
        return from_factors

    def width(self, rows: int, columns: int) -> int:
        """Number of features of one matrix of `rows` × `columns`."""
        return self._width if isinstance(self._width, int) else self._width(rows, columns)

    def __call__(self, stack: np.ndarray) -> np.ndarray:
        """Features (…, width) in float64 of the matrices `stack` (…, m, n), float32 or float64.

        The features of a matrix have the same bits in any stack.
        """
        *leading, m, n = stack.shape
        matrices = stack.reshape(-1, m, n)
        if matrices.dtype not in (np.float32, np.float64):
            matrices = matrices.astype(np.float64)
        features = np.empty((len(matrices), self.width(m, n)))
        step = max(1, STACK_VALUES // (m * n))
        for start in range(0, len(matrices), step):
            rows = slice(start, start + step)
            features[rows] = self._checked(self._dense(np.ascontiguousarray(matrices[rows])), features[rows])
        return features.reshape(*leading, -1)

    def product(self, up: np.ndarray, down: np.ndarray) -> np.ndarray:
        """Features (…, width) in float64 of up · down; `up` (…, m, r) includes α/r, `down` (…, r, n).

        Uses the exact route if there is one; otherwise the products are formed, a few at a time.
        """
        *leading, m, r = up.shape
        n = down.shape[-1]
        up = np.ascontiguousarray(up, np.float64).reshape(-1, m, r)
        down = np.ascontiguousarray(down, np.float64).reshape(-1, r, n)
        features = np.empty((len(up), self.width(m, n)))
        step = max(1, FACTOR_VALUES // (r * (m + n)))
        for start in range(0, len(up), step):
            rows = slice(start, start + step)
            if self._from_factors is None:
                made = dense_route(self._dense, up[rows], down[rows])
            else:
                made = self._from_factors(up[rows], down[rows])
            features[rows] = self._checked(made, features[rows])
        return features.reshape(*leading, -1)

    def _checked(self, made: np.ndarray, place: np.ndarray) -> np.ndarray:
        """`made`. Raises UserError when it does not have the shape of its `place`."""
        if np.shape(made) != place.shape:
            raise UserError(
                f"representation {self.name}: makes shape {np.shape(made)} of {len(place)} matrices;"
                f" {place.shape} is needed, (matrices, width)"
            )
        return made


def dense_route(function: Dense, up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """`function` of the products up · down (R, m, n), formed in blocks of bounded memory."""
    step = max(1, BLOCK_VALUES // (up.shape[-2] * down.shape[-1]))
    blocks = (slice(start, start + step) for start in range(0, len(up), step))
    return np.concatenate([function(np.matmul(up[rows], down[rows])) for rows in blocks])


def representation(
    *, width: int | Callable[[int, int], int], views: tuple[View, ...] = ("factor", "product")
) -> Callable[[Dense], Representation]:
    """Decorator that turns a function (R, m, n) -> (R, width) into a `Representation` of the same name.

    The function defines the representation of any matrix. `@name.of_product` adds the exact route from factors.
    """

    def decorate(dense: Dense) -> Representation:
        return Representation(dense, name=dense.__name__, width=width, views=views)

    return decorate


def names() -> list[str]:
    """The built-in representations, sorted, found by their files."""
    return registry.names(HERE)


def load(name: str) -> Representation:
    """The built-in representation `name`, or a user-supplied one, such as `my_lab.features:curvature`.

    A user-supplied one is a `Representation` or a plain function (…, m, n) -> (…, width). Raises UserError when it does
    not exist.
    """
    found = registry.find(name, HERE, __package__, attribute=None, place="ablation.representations")
    if isinstance(found, Representation):
        return found
    if not callable(found):
        raise UserError(f"ablation.representations: {name}: is not a function")
    short = registry.short_name(name)
    return Representation(found, name=short, width=lambda m, n: _trial_width(found, name, m, n))


def _trial_width(function: Dense, path: str, m: int, n: int) -> int:
    trial = np.random.default_rng(0).standard_normal((2, m, n))
    features = np.asarray(function(trial))
    if features.ndim != 2 or len(features) != 2:
        raise UserError(
            f"representation {path}: makes shape {features.shape} of a stack (2, {m}, {n}); (2, width) is needed"
        )
    return math.prod(features.shape[1:])
