"""What torch.compile had to do in this process: whether it took the model whole, and once."""

import sys


def compiler_counts() -> dict[str, int]:
    """Graph breaks and recompilations in this process so far, a probe's own among them; none without compiling."""
    if "torch._dynamo" not in sys.modules:  # never imported for this: it takes seconds
        return {}
    from torch._dynamo.utils import counters, get_compilation_metrics

    recompiled = [metrics for metrics in get_compilation_metrics() if metrics.recompile_reason]
    return {"graph_breaks": sum(counters["graph_break"].values()), "recompilations": len(recompiled)}
