"""The study's questions, answered in sentences with the numbers of its tables."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from plumbline.core.present.findings import findings_text
from plumbline.core.present.formatting import MISSING, number, plural, reason, with_interval
from plumbline.core.run.records import machine_note, machines
from plumbline.lr_sweep.analysis.frames import overall_speed, shows_intervals
from plumbline.lr_sweep.analysis.seeds import MIN_SEEDS, spread_name
from plumbline.lr_sweep.analysis.sweep import Analysis, Edge, Optimum
from plumbline.lr_sweep.record import CLASSES, Criterion, TrialRecord

FIX = "raise `lr_sweep.extend_at_most` (with `extend: true`) or add rates to `lr_sweep.learning_rates`"


def findings(
    analysis: Analysis,
    trials: pd.DataFrame,
    rates: pd.DataFrame,
    records: Sequence[TrialRecord],
    compared: pd.DataFrame,
) -> str:
    """Markdown: best rate and optimum, baselines, edge, sensitivity, how the trials ended, speed, caveats.

    records: of the sweep. compared: of `baselines_frame`.
    """
    sections = {
        "Which learning rate is best?": _best(analysis, trials, rates),
        "Is the model better than a table of n-grams?": _baselines(compared),
        "Where is the edge of stability?": _edge(analysis, trials, rates),
        "How much does the learning rate matter?": _sensitivity(analysis, trials, rates),
        "How did the trials end?": _classes(trials),
        "How fast did they train?": _speed(trials),
        "Caveats": list(_caveats(analysis, trials, rates, records)) or ["None."],
    }
    return findings_text("Findings of the learning-rate sweep", sections)


def rate_text(rate: float) -> str:
    """A learning rate with three digits: `0.00316`."""
    return f"{rate:.3g}"


def optimum_range(value: Optimum) -> str:
    """`between 0.001 and 0.016`: where the grid shows the optimum to be; at an end of the grid `above 0.016`."""
    if np.isnan(value.low) and np.isnan(value.high):
        return "not bracketed on either side"
    if np.isnan(value.low):
        return f"below {rate_text(value.high)}"
    if np.isnan(value.high):
        return f"above {rate_text(value.low)}"
    return f"between {rate_text(value.low)} and {rate_text(value.high)}"


def edge_range(edge: Edge) -> str:
    """`between 4 and 16`."""
    return f"between {rate_text(edge.last_stable)} and {rate_text(edge.first_diverged)}"


def mean_text(value: float, low: float, high: float) -> str:
    """`3.214 [3.200, 3.228]`; without brackets for a single seed, which has no spread; a dash for NaN."""
    if np.isnan(value):
        return MISSING
    return number(value, 3) if np.isnan(low) else with_interval(value, low, high, digits=3)


def number_or_dash(value: float) -> str:
    """`0.011`; a dash for NaN."""
    return MISSING if np.isnan(value) else number(value, 3)


def plus_minus(value: float, standard_error: float) -> str:
    """`2.571 ± 0.010`; without the error where there is none; a dash for a value that is not finite."""
    if not np.isfinite(value):
        return MISSING
    return number(value, 3) + ("" if np.isnan(standard_error) else f" ± {number(standard_error, 3)}")


def loss_text(row: pd.Series, name: str = "final_validation_loss") -> str:
    """`3.214 [3.200, 3.228]`, in nats: the mean over seeds with their spread."""
    return mean_text(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _best(analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame) -> Iterator[str]:
    if np.isnan(analysis.best_rate):
        yield "There is no best rate: no rate converged for all of its seeds."
        return
    row = rates[rates["rate"] == analysis.best_rate].iloc[0]
    yield (
        f"{rate_text(analysis.best_rate)} is the best of {plural(len(rates), 'rate')}: its final validation loss is "
        f"{loss_text(row)} nats per token, the mean over {plural(int(row['with_loss']), 'seed')}"
        f"{_brackets(trials, row['final_validation_loss_low'])}."
    )
    where = f"By the mean over seeds, the optimum is {optimum_range(analysis.optimum)}"
    if analysis.bracketed:
        yield (
            f"{where}. A parabola in log rate through the best rate and its two neighbours has its minimum at "
            f"{rate_text(analysis.optimum.value)}, but that is a guess between rates that are "
            f"{_ratio(rates, analysis.best_rate):.2g} times apart."
        )
    else:
        yield f"{where}. No parabola was fitted: the best rate lacks a converged neighbour on at least one side."


def _baselines(compared: pd.DataFrame) -> Iterator[str]:
    """The losses of the tables, and of the models beside them."""
    tables = compared[compared["steps"] == 0].set_index("model")
    losses = [f"a {name} {plus_minus(row['loss'], row['standard_error'])}" for name, row in tables.iterrows()]
    yield (
        f"On the same validation windows, a table of token counts has a loss of: {', '.join(losses)} nats per token "
        "(± one standard error over windows)."
    )
    for _, row in compared[compared["steps"] > 0].iterrows():
        better = [str(name) for name in tables.index if row["loss"] < tables.loc[name, "loss"]]
        over = plus_minus(abs(row["over_trigram"]), row["over_trigram_standard_error"])
        side = "below" if row["over_trigram"] < 0 else "above"
        yield (
            f"{row['model']}, after {row['steps']:,} steps: {plus_minus(row['loss'], row['standard_error'])} nats, "
            f"{over} {side} the trigram (paired over windows); better than {', '.join(better) or 'none of the tables'}."
        )


def _brackets(trials: pd.DataFrame, low: float) -> str:
    """What the brackets after a mean over seeds show; nothing when there are none."""
    return "" if np.isnan(low) else f" (in brackets: the {spread_name(interval=shows_intervals(trials))})"


def _ratio(rates: pd.DataFrame, best: float) -> float:
    """The larger of the two ratios between the best rate and its neighbours."""
    grid = rates["rate"].to_numpy(dtype=np.float64)
    index = int(np.flatnonzero(grid == best)[0])
    return float(max(grid[index] / grid[index - 1], grid[index + 1] / grid[index]))


def _edge(analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame) -> Iterator[str]:
    edge = analysis.edge
    if not edge.reached:
        if rates[(rates["with_loss"] > 0) & (rates["diverged"] == 0)].empty:
            yield f"Not reached: training is stable at no rate of the grid; {FIX} below it."
        else:
            highest = rate_text(rates["rate"].max())
            yield f"Not reached: no rate above the best one diverged, up to {highest}; {FIX} above it."
        return
    yield (
        f"Training starts to diverge {edge_range(edge)}: no seed diverged at the lower rate, at least one did at the "
        f"higher. Their geometric mean is {rate_text(edge.rate)}."
    )
    best = analysis.best_rate
    if not np.isnan(best):
        low, high = edge.last_stable / best, edge.first_diverged / best
        yield f"That is {_ratio_text(low)} to {_ratio_text(high)} times the best rate."
    if spiked := _spiked(analysis, rates):
        yield (
            f"Below the edge, training is already unstable from {rate_text(spiked[0])} on: the loss blew up and "
            f"recovered in at least one trial at {', '.join(map(rate_text, spiked))}."
        )
    if idle := _idle(analysis, trials, rates):
        names = ", ".join(map(rate_text, idle))
        yield (
            f"Not diverging does not mean learning: at {names}, the model gained less than a tenth of what the best "
            "rate gained over the unigram entropy."
        )


def _spiked(analysis: Analysis, rates: pd.DataFrame) -> list[float]:
    """Stable rates above the best one at which a trial spiked."""
    inside = (rates["rate"] > analysis.best_rate) & (rates["rate"] < analysis.edge.first_diverged)
    return [float(rate) for rate in rates["rate"][inside & (rates["spiked"] > 0)]]


def _ratio_text(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _idle(analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame) -> list[float]:
    """Stable rates above the best one at which the model learned almost nothing."""
    entropy = trials["unigram_entropy_nats"].dropna()
    if entropy.empty or np.isnan(analysis.best_rate):
        return []
    stable = rates[(rates["rate"] > analysis.best_rate) & (rates["rate"] < analysis.edge.first_diverged)]
    gain = entropy.iloc[0] - stable["final_validation_loss"]
    return [float(rate) for rate in stable["rate"][gain < 0.1 * (entropy.iloc[0] - analysis.best_loss)]]


def _sensitivity(analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame) -> Iterator[str]:
    estimate = analysis.sensitivity
    if np.isnan(estimate.value) or len(rates) < 2:
        return
    low, high = rate_text(rates["rate"].min()), rate_text(rates["rate"].max())
    yield (
        f"The learning-rate sensitivity is {mean_text(estimate.value, estimate.low, estimate.high)} nats"
        f"{_brackets(trials, estimate.low)}: the mean of min(final loss, initial loss) over log rate "
        f"from {low} to {high}, minus its minimum (Wortsman et al., arXiv 2309.14322). A wider grid gives a larger "
        "value."
    )


def _classes(trials: pd.DataFrame) -> Iterator[str]:
    trained = trials[trials["class"].notna()]
    counts = [f"{int((trained['class'] == name).sum())} {name}" for name in CLASSES]
    yield f"Of {plural(len(trials), 'trial')}, {', '.join(counts)}."
    for name in CLASSES[1:]:
        for criterion in Criterion:
            of_class = trained[(trained["class"] == name) & (trained["criterion"] == criterion)]
            if of_class.empty:
                continue
            parts = []
            for rate in sorted(of_class["rate"].unique()):
                count, total = ((frame["rate"] == rate).sum() for frame in (of_class, trained))
                parts.append(rate_text(rate) + ("" if count == total else f" ({count} of {total} seeds)"))
            yield f"{name.capitalize()} ({criterion}) at {', '.join(parts)}{_severity(of_class)}."


def _severity(trials: pd.DataFrame) -> str:
    """How bad the worst of these trials was: its peak and how long it stayed above the initial loss."""
    worst = float(trials["peak_ratio"].max())
    if not np.isfinite(worst) or worst <= 1:
        return ""
    return (
        f"; at worst the loss peaked at {worst:,.3g} times the initial one, and at worst "
        f"{trials['share_above_initial'].max():.0%} of a trial's steps were above it"
    )


def _speed(trials: pd.DataFrame) -> Iterator[str]:
    speed = trials["tokens_per_second"].dropna()
    if len(speed):
        yield (
            f"{overall_speed(trials):,.0f} tokens per second over the steps of the grid's trials; single trials ran at "
            f"{speed.min():,.0f} to {speed.max():,.0f}. This includes waiting for data, but not validation, "
            "checkpoints and logging, which `plumbline diagnose lr_sweep` includes."
        )


def _caveats(
    analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame, records: Sequence[TrialRecord]
) -> Iterator[str]:
    if trials["seed"].nunique() == 1:
        yield "There is only one seed, so no spread can be given and a difference between rates may be chance."
    elif not shows_intervals(trials):
        yield (
            f"With fewer than {MIN_SEEDS} seeds there is no interval: the brackets show the range of the seeds, and "
            "another seed may fall outside it."
        )
    if not np.isnan(analysis.best_rate) and analysis.best_rate in (rates["rate"].min(), rates["rate"].max()):
        yield (
            f"The best rate, {rate_text(analysis.best_rate)}, is at an end of the grid, so a better one may lie beyond "
            f"it; {FIX} there."
        )
    if not analysis.edge.reached:
        yield "The edge of stability was not reached, so the sensitivity does not include rates beyond it."
    for record in records:
        if not record.trained:
            yield f"{record.trial}: {reason(record.outcome, record.message)}; it is left out of all means."
    if note := machine_note(machines(records)):
        yield note
