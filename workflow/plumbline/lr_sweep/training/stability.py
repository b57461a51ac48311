"""The class of a finished run: converged, spiked, plateaued or diverged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plumbline.lr_sweep.record import Stability
from plumbline.lr_sweep.settings import StabilitySettings

LEAST_STD = 1e-3
"""In nats: after a window in which the loss hardly moved, a small move is not a spike."""


@dataclass(frozen=True, kw_only=True)
class Classification:
    """A run's class and the numbers behind it."""

    stability: Stability
    spikes: int
    """Number of steps whose z-score was above the threshold."""
    largest_z: float
    """NaN when the run was shorter than the window."""
    why: str


def z_scores(losses: Sequence[float], window: int) -> np.ndarray:
    """(loss − mean) / standard deviation over the `window` losses before it; for each loss from index `window` on."""
    values = np.asarray(losses, dtype=np.float64)
    if len(values) <= window:
        return np.empty(0)
    before = np.lib.stride_tricks.sliding_window_view(values, window)[:-1]
    return (values[window:] - before.mean(axis=1)) / np.maximum(before.std(axis=1), LEAST_STD)


def classify(
    losses: Sequence[float],
    initial_loss: float,
    final_loss: float,
    unigram_entropy: float,
    settings: StabilitySettings,
) -> Classification:
    """The class of a run from its training losses (one per step) and its first and last validation loss, in nats."""
    finite = all(map(math.isfinite, [*losses, initial_loss, final_loss]))
    scores = z_scores(losses, settings.window) if finite else np.empty(0)
    figures: dict[str, Any] = {
        "spikes": int((scores > settings.spike_z).sum()),
        "largest_z": float(scores.max()) if len(scores) else math.nan,
    }
    if not finite:
        step = next((step for step, loss in enumerate(losses, 1) if not math.isfinite(loss)), len(losses))
        return Classification(stability=Stability.DIVERGED, why=f"the loss is not finite at step {step}", **figures)
    if final_loss > initial_loss:
        why = f"the final loss, {final_loss:.3f}, is above the initial loss, {initial_loss:.3f}"
        return Classification(stability=Stability.DIVERGED, why=why, **figures)
    if final_loss > unigram_entropy - settings.plateau_margin:
        why = f"the final loss, {final_loss:.3f}, is not below the unigram entropy, {unigram_entropy:.3f}"
        return Classification(stability=Stability.PLATEAUED, why=why, **figures)
    if figures["spikes"]:
        step = settings.window + int(scores.argmax()) + 1
        why = f"the loss of step {step} is {figures['largest_z']:.1f} standard deviations above its window"
        return Classification(stability=Stability.SPIKED, why=why, **figures)
    return Classification(stability=Stability.CONVERGED, why="no loss rose far above its moving window", **figures)
