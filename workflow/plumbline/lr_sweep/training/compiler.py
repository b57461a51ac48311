"""Graph breaks and recompilations of torch.compile in this process."""

import torch


def compiler_counts() -> dict[str, int]:
    """Number of graph breaks and recompilations so far, including those of a probe; empty without compiling."""
    if "_dynamo" not in vars(torch):  # do not import it just for this: it takes seconds
        return {}
    from torch._dynamo.utils import counters, get_compilation_metrics

    recompiled = [metrics for metrics in get_compilation_metrics() if metrics.recompile_reason]
    return {"graph_breaks": sum(counters["graph_break"].values()), "recompilations": len(recompiled)}
