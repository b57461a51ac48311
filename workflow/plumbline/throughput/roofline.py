"""How near a trial came to what the machine can do: model bandwidth and FLOP utilisation, and share of the ceiling."""

from typing import Any


def roofline(
    *,
    batch: int,
    step_bytes: float,
    step_flops: float,
    bandwidth: float | None,
    flops: float | None,
    tokens_per_second: float | None,
) -> dict[str, Any]:
    """Ceiling, what binds, MBU, MFU and share of the ceiling of a decode step for `batch` rows.

    A step that moves `step_bytes` and computes `step_flops` takes at least max(bytes / bandwidth, FLOPs / peak)
    seconds (Williams et al. 2009, "Roofline"). Null where a limit or the rate of decoding is not known.
    """
    found: dict[str, Any] = {
        "decode_step_bytes": step_bytes,
        "decode_step_flops": step_flops,
        "limit_bandwidth_bytes_per_second": bandwidth,
        "limit_flops_per_second": flops,
    }
    if not (bandwidth and flops):
        return found
    moving, computing = step_bytes / bandwidth, step_flops / flops
    ceiling = batch / max(moving, computing)
    found |= {"ceiling_tokens_per_second": ceiling, "binds": "bandwidth" if moving >= computing else "compute"}
    if tokens_per_second is not None:
        steps = tokens_per_second / batch
        found |= {"mbu": steps * moving, "mfu": steps * computing, "ceiling_share": tokens_per_second / ceiling}
    return found
