"""Numbers and counts as they stand in sentences, tables and labels."""

import math

MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"

OUTCOMES = {"out_of_memory": "OOM", "invalid_output": "invalid output", "timeout": "timed out"}


def with_interval(mean: float, low: float, high: float, *, digits: int = 1, signed: bool = False) -> str:
    """`61.8 [60.2, 63.1]`; a dash when the mean is missing, `61.8 [–]` when one sample gave no interval."""
    if math.isnan(mean):
        return MISSING
    if math.isnan(low) or math.isnan(high):
        return f"{number(mean, digits, signed)} [{MISSING}]"
    return f"{number(mean, digits, signed)} [{number(low, digits, signed)}, {number(high, digits, signed)}]"


def number(value: float, digits: int = 1, signed: bool = False) -> str:
    """`value` with a true minus sign, and with a plus where `signed`; what rounds to zero has no sign."""
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def p_text(p_value: float) -> str:
    """A p-value to three decimals, `< 0.001` below that, a dash when it is missing."""
    if math.isnan(p_value):
        return MISSING
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def percent(share: float) -> str:
    """`14.3%`, three digits."""
    return f"{100 * share:.3g}%"


def plural(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def bytes_text(count: float) -> str:
    """`0.61 MB`, `13.5 GB`, in powers of ten."""
    size, unit = (1e9, "GB") if count >= 1e9 else (1e6, "MB")
    return f"{count / size:,.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"


def short(value: float) -> str:
    """A number for an axis or a label: `0.35`, `12`, `18.75k`, `120k`, `3M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def outcome_label(outcome: str) -> str:
    """An outcome in figures and tables: `out_of_memory` → `OOM`."""
    return OUTCOMES.get(str(outcome), str(outcome).replace("_", " "))


def reason(outcome: str, message: str | None) -> str:
    """An outcome in a sentence: `out of memory (asked for 9 GB)`."""
    return str(outcome).replace("_", " ") + (f" ({message})" if message else "")
