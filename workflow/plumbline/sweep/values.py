"""Values of parameters as the config may write them."""

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from plumbline.sweep.trial.command import Value

EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def as_number(value: Any) -> Any:
    """`1e-3`, which YAML 1.1 reads as text because it has no point, is the number that was meant."""
    is_number = isinstance(value, str) and EXPONENT.fullmatch(value) and math.isfinite(float(value))
    return float(value) if is_number else value


def _can_be_passed(value: Value) -> Value:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("holds a NUL character, which no command line can")
    return value


PlainValue = Annotated[Value, BeforeValidator(as_number), AfterValidator(_can_be_passed)]
Point = dict[str, PlainValue]
