"""When each token came: time to the first token, time per further token, and how the latter is distributed."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from plumbline.throughput.engines.interface import Shape

log = logging.getLogger("plumbline")

CALLS = 5
SECONDS = 0.3
"""No further call starts after this time."""
AGREES_WITHIN = 0.1
"""Reading the clock at every token costs time, and so does what else the machine does: beyond this share of the timed
batches' seconds, the latencies do not describe them."""


def stamps(
    generate: Callable[[int, Callable[[], None]], Tensor], shape: Shape, synchronise: Callable[[], None]
) -> list[list[float]]:
    """Seconds from the start of a call to each of its tokens, for up to five calls."""
    calls: list[list[float]] = []
    began = time.perf_counter()
    while not calls or (len(calls) < CALLS and time.perf_counter() - began < SECONDS):
        seen: list[float] = []
        synchronise()
        start = time.perf_counter()
        generate(shape.generated, lambda seen=seen: seen.append(time.perf_counter()))  # type: ignore[misc]
        calls.append([stamp - start for stamp in seen])
    return calls


def agreement(calls: Sequence[Sequence[float]], batches: Sequence[float]) -> dict[str, Any]:
    """How the calls' seconds compare with those of the timed `batches`, as JSON; empty without a token's stamp."""
    if not all(calls):
        return {}
    ratio = float(np.mean([call[-1] for call in calls]) / np.mean(batches))
    return {"latency_seconds_ratio": ratio, "latency_agrees": abs(ratio - 1) <= AGREES_WITHIN}


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
