"""Settings of a search, of the space that it draws from, and of halving."""

import math
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, StrictFloat, StrictInt, model_validator

from plumbline.core.settings import Settings
from plumbline.sweep.trial.command import Value
from plumbline.sweep.values import PlainValue, as_number

Bound = Annotated[StrictInt | StrictFloat, BeforeValidator(as_number)]
DIGITS = 6
"""Significant digits of a drawn number, so that it can stand in a path and be typed again."""


class Dimension(Settings):
    """What one parameter is drawn from: a range, of integers where both ends are, or a list."""

    low: Bound | None = None
    """Smallest value."""
    high: Bound | None = None
    """Largest value."""
    log: bool = False
    """Whether each power of ten gets an equal share of the draws."""
    choices: Annotated[list[PlainValue], Field(min_length=1)] | None = None
    """The values, in place of a range."""

    @model_validator(mode="after")
    def _is_drawable(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("has choices, so it takes neither low, high nor log")
            if len({(type(choice), choice) for choice in self.choices}) < len(self.choices):
                raise ValueError("choices: a value is named twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("low and high must be finite")
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, above high, which is {self.high:g}; swap them")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0 (given: {self.low:g})")
        return self

    @property
    def is_integer(self) -> bool:
        """Whether it is a range of integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, place: float) -> Value:
        """The value at `place`, in [0, 1), of its distribution."""
        if self.choices is not None:
            return self.choices[int(place * len(self.choices))]
        assert self.low is not None
        assert self.high is not None
        margin = 0.5 if self.is_integer else 0.0
        low, high = self.low - margin, self.high + margin
        if self.log:
            return self.within(math.exp(math.log(low) + place * (math.log(high) - math.log(low))))
        return self.within(low + place * (high - low))

    def within(self, number: float) -> Value:
        """The nearest value of a range, to DIGITS significant digits."""
        assert self.low is not None
        assert self.high is not None
        if self.is_integer:
            return int(min(max(round(number), self.low), self.high))
        return min(max(float(f"{number:.{DIGITS}g}"), float(self.low)), float(self.high))

    def holds(self, value: Value) -> bool:
        """Whether it could be drawn, but for its digits."""
        if self.choices is not None:
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        if isinstance(value, bool | str) or (self.is_integer and not isinstance(value, int)):
            return False
        assert self.low is not None
        assert self.high is not None
        return self.low <= value <= self.high


class SearchSettings(Settings):
    """Points that are drawn from a space."""

    sampler: Literal["random", "qmc", "tpe"] = "random"
    """How points are drawn: at random, evenly (scrambled Sobol' sequence), or where earlier ones did well (Optuna's
    tree-structured Parzen estimator, in rounds)."""
    trials: Annotated[int, Field(gt=0)] = 40
    """Number of points to draw. More of them later keep those that are there."""
    batch: Annotated[int, Field(gt=0)] = 8
    """Points per round of tpe, which run side by side; random and qmc need no rounds."""
    seed: int = 0
    """Seed of the draws."""
    space: Annotated[dict[str, Dimension], Field(min_length=1)]
    """What each parameter is drawn from."""

    @property
    def rounds(self) -> int:
        """Number of rounds in which earlier results decide what is drawn."""
        return math.ceil(self.trials / self.batch) if self.sampler == "tpe" else 0


class HalvingSettings(Settings):
    """Successive halving: all points run on a small budget, and the best of them go on with a larger one."""

    budget: Annotated[str, Field(min_length=1)]
    """Parameter that is the budget, such as a number of epochs; a placeholder of the command."""
    low: Annotated[int, Field(gt=0)]
    """Budget that every point gets."""
    high: Annotated[int, Field(gt=0)]
    """Budget of the points that are left in the end."""
    factor: Annotated[int, Field(gt=1)] = 3
    """How many times larger each budget is, and one of how many points goes on."""

    @model_validator(mode="after")
    def _reaches_high(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}, not below high, which is {self.high}")
        if self.budgets[-1] != self.high:
            reached = f"{self.budgets[-1]} or {self.budgets[-1] * self.factor}"
            raise ValueError(f"high is {self.high}, which low times powers of factor do not reach; use {reached}")
        return self

    @property
    def budgets(self) -> list[int]:
        """The budgets from low to high."""
        found = [self.low]
        while found[-1] * self.factor <= self.high:
            found.append(found[-1] * self.factor)
        return found
