"""The class of a finished run, from its whole training curve: converged, spiked, plateaued or diverged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plumbline.lr_sweep.record import Criterion, Stability
from plumbline.lr_sweep.settings import StabilitySettings

LEAST_NOISE = 1e-3
"""In nats: where the loss hardly moves from step to step, a small move is not a spike."""


@dataclass(frozen=True, kw_only=True)
class Classification:
    """A run's class, the criterion that decided it, and the numbers behind both."""

    stability: Stability
    criterion: Criterion
    why: str
    peak_ratio: float
    """Highest training loss divided by the initial loss; infinite when a loss is not finite."""
    share_above_initial: float
    """Share of the steps with a training loss above the initial loss; a loss that is not finite is above it."""
    last_step_above_initial: int
    """Last of these steps, after which the run stayed below the initial loss; 0 when there is none."""
    spikes: int
    """Number of steps whose loss was `spike_z` or more above its moving window."""
    largest_z: float
    """NaN when a loss is not finite or the run has a single step."""


def z_scores(losses: Sequence[float], window: int) -> np.ndarray:
    """How far each loss from the second on is above the mean of up to `window` losses before it, in units of the noise.

    The noise is the same for all steps: the standard deviation of a loss around its trend, estimated from the median
    difference between neighbouring steps. So the first steps, where a window holds few losses, are scored as well.
    """
    values = np.asarray(losses, dtype=np.float64)
    if len(values) < 2:
        return np.empty(0)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values))
    starts = np.maximum(ends - window, 0)
    means = (sums[ends] - sums[starts]) / (ends - starts)
    # a difference of two normal losses has a median size of 0.6745 √2 standard deviations
    noise = np.median(np.abs(np.diff(values))) / (0.6745 * math.sqrt(2))
    return np.asarray((values[1:] - means) / max(noise, LEAST_NOISE))


def classify(
    losses: Sequence[float],
    curve: Sequence[float],
    final_loss: float,
    unigram_entropy: float,
    settings: StabilitySettings,
) -> Classification:
    """The class of a run.

    losses: of training, one per step. curve: validation losses in the course of training, all on the same windows.
    final_loss: on all validation windows, as the unigram entropy is. All in nats.
    """
    values, initial_loss, last_loss = np.asarray(losses, dtype=np.float64), curve[0], curve[-1]
    finite = bool(np.isfinite([*values, initial_loss, last_loss, final_loss]).all())
    scores = z_scores(losses, settings.window) if finite else np.empty(0)
    above = ~(values <= initial_loss)  # NaN is above as well
    peak_ratio = float(values.max() / initial_loss) if finite else math.inf
    share = float(above.mean())
    last = int(np.flatnonzero(above)[-1]) + 1 if above.any() else 0
    spikes = int((scores > settings.spike_z).sum())
    stability, criterion, why = Stability.CONVERGED, Criterion.NONE, "no loss rose far above the losses before it"
    if not finite:
        step = int(np.flatnonzero(~np.isfinite(values))[0]) + 1 if not np.isfinite(values).all() else len(values)
        stability, criterion = Stability.DIVERGED, Criterion.NOT_FINITE
        why = f"the loss is not finite at step {step}"
    elif last_loss > initial_loss:
        stability, criterion = Stability.DIVERGED, Criterion.FINAL_LOSS
        why = f"the final loss, {last_loss:.3f}, is above the initial loss, {initial_loss:.3f}"
    elif share > settings.diverged_share:
        stability, criterion = Stability.DIVERGED, Criterion.TIME_ABOVE_INITIAL
        why = f"the loss was above the initial loss, {initial_loss:.3f}, in {share:.0%} of the steps, until step {last}"
    elif final_loss > unigram_entropy - settings.plateau_margin:
        stability, criterion = Stability.PLATEAUED, Criterion.UNIGRAM_ENTROPY
        why = f"the final loss, {final_loss:.3f}, is not below the unigram entropy, {unigram_entropy:.3f}"
    elif peak_ratio > settings.spike_ratio:
        stability, criterion = Stability.SPIKED, Criterion.PEAK
        why = (
            f"the loss rose to {values.max():.3g} at step {values.argmax() + 1}, {peak_ratio:.2f} times the initial "
            f"loss, and was below the initial loss after step {last}"
        )
    elif spikes:
        stability, criterion = Stability.SPIKED, Criterion.Z_SCORE
        why = f"the loss of step {scores.argmax() + 2} is {scores.max():.1f} standard deviations above its window"
    return Classification(
        stability=stability,
        criterion=criterion,
        why=why,
        peak_ratio=peak_ratio,
        share_above_initial=share,
        last_step_above_initial=last,
        spikes=spikes,
        largest_z=float(scores.max()) if len(scores) else math.nan,
    )
