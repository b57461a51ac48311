"""When each token came: time to the first token, time per further token, and how the latter is distributed."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from plumbline.throughput.engines.interface import Shape
from plumbline.throughput.measurement.pace import Pace, TimedCall

log = logging.getLogger("plumbline")

CALLS = 5
SECONDS, PATIENT_SECONDS = 0.3, 0.9
"""No further call starts after this time; after the longer one, where no call ran at full speed yet."""


def stamps(
    generate: Callable[[int, Callable[[], None]], Tensor],
    shape: Shape,
    synchronise: Callable[[], None],
    pace: Pace,
    tolerance: float,
) -> tuple[list[list[float]], bool]:
    """Seconds from the start of a call to each of its tokens, for up to five calls; and whether they were slowed.

    The calls during which the machine ran at full speed; where there was none, the first ones, which were slowed.
    """
    calls: list[tuple[TimedCall, list[float]]] = []
    full: list[list[float]] = []
    began, before = time.perf_counter(), pace.measure()
    while len(full) < CALLS and (not calls or time.perf_counter() - began < (SECONDS if full else PATIENT_SECONDS)):
        seen: list[float] = []
        synchronise()
        start = time.perf_counter()
        generate(shape.generated, lambda seen=seen: seen.append(time.perf_counter()))  # type: ignore[misc]
        seconds, after = time.perf_counter() - start, pace.measure()
        calls.append((TimedCall(seconds, max(before, after)), [stamp - start for stamp in seen]))
        before = after
        full = [each for call, each in calls if pace.is_full(call, tolerance)]
    return (full, False) if full else ([each for _, each in calls[:CALLS]], True)


def latencies(calls: Sequence[Sequence[float]], shape: Shape) -> dict[str, Any]:
    """Latencies from the stamps, as JSON; empty where the engine did not report every token.

    The time to the first token is the median over calls; the time per further token is Σ time / Σ tokens, which a call
    for a single token does not have. Rates count the tokens of all rows.
    """
    if any(len(call) != shape.generated for call in calls):
        log.warning("the engine reported %s tokens of %d", [len(call) for call in calls], shape.generated)
        return {}
    first = float(np.median([call[0] for call in calls]))
    found: dict[str, Any] = {
        "time_to_first_token_seconds": first,
        "prefill_tokens_per_second": shape.batch * shape.prompt / first,
        "inter_token_seconds": [],
    }
    gaps = np.concatenate([np.diff(call) for call in calls])
    if len(gaps) == 0:
        return found
    each = float(gaps.mean())
    return found | {
        "time_per_output_token_seconds": each,
        "inter_token_seconds": gaps.tolist(),
        **{f"inter_token_p{level}_seconds": float(np.percentile(gaps, level)) for level in (50, 90, 99)},
        "decode_tokens_per_second": shape.batch / each,
    }
