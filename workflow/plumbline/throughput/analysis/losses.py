"""How much more two variants lose on the same held-out windows, paired window by window."""

import numpy as np

from plumbline.core.statistics.bootstrap import bootstrap_interval
from plumbline.throughput.models.manifest import Manifest


def loss_difference(variant: Manifest | None, other: Manifest | None) -> tuple[float, float, float]:
    """Mean over windows of the loss of `variant` minus that of `other`, in nats per token, with its 95% interval.

    Value, low, high; bootstrap over windows. NaN where one of them was not scored, or not on the same windows.
    """
    if variant is None or other is None or not 0 < len(variant.window_nats) == len(other.window_nats):
        return float("nan"), float("nan"), float("nan")
    differences = np.subtract(variant.window_nats, other.window_nats)
    low, high = bootstrap_interval(differences)
    return float(differences.mean()), float(low), float(high)
