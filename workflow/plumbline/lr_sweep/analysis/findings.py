"""The study's questions, answered in sentences with the numbers of its tables."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.present.formatting import number, with_interval
from plumbline.lr_sweep.analysis.frames import overall_speed, shows_intervals
from plumbline.lr_sweep.analysis.records import CLASSES, machine_note
from plumbline.lr_sweep.analysis.seeds import LEAST, spread_name
from plumbline.lr_sweep.analysis.sweep import Analysis, Edge, Optimum

WAY_OUT = "raise `lr_sweep.extend_at_most` (with `extend: true`) or add rates to `lr_sweep.learning_rates`"


def findings(analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame, records: Sequence[dict[str, Any]]) -> str:
    """Markdown: the best rate and the optimum, the edge, the sensitivity, what became of each trial, cautions."""
    sections = {
        "Which learning rate is best": _best(analysis, trials, rates),
        "Where is the edge of stability": _edge(analysis, trials, rates),
        "How much does the choice matter": _sensitivity(analysis, trials, rates),
        "What became of the trials": _classes(trials, rates),
        "How fast they trained": _speed(trials, rates),
        "To be careful about": _cautions(analysis, trials, rates, records),
    }
    text = "# What the learning-rate sweep found\n"
    for title, sentences in sections.items():
        lines = list(sentences) or ["Nothing to report."]
        text += f"\n## {title}\n\n" + "".join(f"- {line}\n" for line in lines)
    return text


def rate_text(rate: float) -> str:
    """A learning rate in short, with three digits: `0.00316`."""
    return f"{rate:.3g}"


def optimum_range(value: Optimum) -> str:
    """`between 0.001 and 0.016`: what the grid shows of the optimum; where it has no neighbour, `above 0.016`."""
    if np.isnan(value.low) and np.isnan(value.high):
        return "anywhere"
    if np.isnan(value.low):
        return f"below {rate_text(value.high)}"
    if np.isnan(value.high):
        return f"above {rate_text(value.low)}"
    return f"between {rate_text(value.low)} and {rate_text(value.high)}"


def edge_range(edge: Edge) -> str:
    """`between 4 and 16`."""
    return f"between {rate_text(edge.last_stable)} and {rate_text(edge.first_diverged)}"


def mean_text(value: float, low: float, high: float) -> str:
    """`3.214 [3.200, 3.228]`; a single seed, without spread, has no brackets."""
    return number(value, 3) if np.isnan(low) else with_interval(value, low, high, digits=3)


def loss_text(row: pd.Series, name: str = "final_validation_loss") -> str:
    """`3.214 [3.200, 3.228]`, in nats: the mean over seeds with their spread."""
    return mean_text(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _best(analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame) -> Iterator[str]:
    if np.isnan(analysis.best_rate):
        yield "No rate converged for all of its seeds: there is no best one."
        return
    row = rates[rates["rate"] == analysis.best_rate].iloc[0]
    spread = "" if np.isnan(row["final_validation_loss_low"]) else _brackets(trials)
    yield (
        f"Of {_plural(len(rates), 'rate')}, {rate_text(analysis.best_rate)} has the lowest final validation loss: "
        f"{loss_text(row)} nats per token, mean over {_plural(int(row['with_loss']), 'seed')}{spread}."
    )
    value = analysis.optimum
    where = f"The optimum lies {optimum_range(value)}, as far as this grid shows"
    if analysis.bracketed:
        yield (
            f"{where}. A parabola in log rate through the best rate and its two neighbours is least at "
            f"{rate_text(value.value)}: a guess between rates {_ratio(rates, analysis.best_rate):.2g} times apart."
        )
    else:
        yield f"{where}; the best rate lacks a converged neighbour on at least one side, so that no parabola was laid."
    entropy = trials["unigram_entropy_nats"].dropna()
    if len(entropy):
        gain = entropy.iloc[0] - row["final_validation_loss"]
        yield (
            f"The loss at the best rate is {number(gain, 3)} nats below the corpus's unigram entropy, "
            f"{entropy.iloc[0]:.3f} nats, which is the loss of a model that knows only how frequent each token is."
        )


def _brackets(trials: pd.DataFrame) -> str:
    """What stands in brackets after a mean over seeds."""
    return f" (in brackets the {spread_name(interval=shows_intervals(trials))})"


def _ratio(rates: pd.DataFrame, best: float) -> float:
    """Of the best rate and its neighbours, the wider step."""
    places = rates["rate"].to_numpy(dtype=np.float64)
    index = int(np.flatnonzero(places == best)[0])
    return float(max(places[index] / places[index - 1], places[index + 1] / places[index]))


def _edge(analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame) -> Iterator[str]:
    edge = analysis.edge
    if not edge.reached:
        stayed = rates[(rates["with_loss"] > 0) & (rates["diverged"] == 0)]
        if stayed.empty:
            yield f"Not reached: there is no rate at which training stays stable; {WAY_OUT} below."
        else:
            highest = rate_text(rates["rate"].max())
            yield f"Not reached: no rate above the best one diverged, up to {highest}; {WAY_OUT} above."
        return
    yield (
        f"Training diverges somewhere {edge_range(edge)}: the one is the last rate at which no seed diverged, the "
        f"other the first at which one did. {rate_text(edge.rate)} is their geometric mean."
    )
    best = analysis.best_rate
    if not np.isnan(best):
        low, high = edge.last_stable / best, edge.first_diverged / best
        yield f"That is {_times(low)} to {_times(high)} times the best rate."
    if idle := _idle(analysis, trials, rates):
        names = ", ".join(map(rate_text, idle))
        yield (
            f"Stable is not good: above the best rate and below the edge, {names} gained less than a tenth of what the "
            "best rate did over the unigram entropy."
        )


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _idle(analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame) -> list[float]:
    """Stable rates above the best one at which the model learned next to nothing."""
    entropy = trials["unigram_entropy_nats"].dropna()
    if entropy.empty or np.isnan(analysis.best_rate):
        return []
    stable = rates[(rates["rate"] > analysis.best_rate) & (rates["rate"] < analysis.edge.first_diverged)]
    gain = entropy.iloc[0] - stable["final_validation_loss"]
    return [float(rate) for rate in stable["rate"][gain < 0.1 * (entropy.iloc[0] - analysis.best_loss)]]


def _sensitivity(analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame) -> Iterator[str]:
    value = analysis.sensitivity
    if np.isnan(value.value) or len(rates) < 2:
        return
    low, high = rate_text(rates["rate"].min()), rate_text(rates["rate"].max())
    spread = "" if np.isnan(value.low) else _brackets(trials)
    yield (
        f"Learning-rate sensitivity (Wortsman et al., arXiv 2309.14322): "
        f"{mean_text(value.value, value.low, value.high)} nats{spread}, the mean over the {len(rates)} rates "
        f"from {low} to {high} of min(final loss, initial loss), minus the best. It grows with the range."
    )


def _classes(trials: pd.DataFrame, rates: pd.DataFrame) -> Iterator[str]:
    trained = trials[trials["class"].notna()]
    counts = [(name, int((trained["class"] == name).sum())) for name in CLASSES]
    yield f"Of {_plural(len(trials), 'trial')}: {', '.join(f'{count} {name}' for name, count in counts)}."
    for name in CLASSES[1:]:
        named = rates[rates[name] > 0]
        if len(named):
            parts = [
                rate_text(row["rate"])
                + ("" if row[name] == row["with_loss"] else f" ({row[name]:.0f} of {row['with_loss']:.0f} seeds)")
                for _, row in named.iterrows()
            ]
            yield f"{name.capitalize()}: {', '.join(parts)}."


def _speed(trials: pd.DataFrame, rates: pd.DataFrame) -> Iterator[str]:
    speed = trials["tokens_per_second"].dropna()
    if len(speed):
        yield (
            f"{overall_speed(trials):,.0f} tokens per second of steps over all trials, a single one {speed.min():,.0f} "
            f"to {speed.max():,.0f}. Waiting for data counts; validation, checkpoints and logging do not, as they do "
            "in the speed of the whole loop that `plumbline diagnose lr_sweep` tells."
        )


def _cautions(
    analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame, records: Sequence[dict[str, Any]]
) -> Iterator[str]:
    seeds = trials["seed"].nunique()
    if seeds == 1:
        yield "There is one seed: no spread can be given, and a difference between rates may be chance."
    elif not shows_intervals(trials):
        yield (
            f"There are fewer than {LEAST} seeds, too few for an interval: what stands in brackets is their range, and "
            "another seed may lie outside it."
        )
    if not np.isnan(analysis.best_rate) and analysis.best_rate in (rates["rate"].min(), rates["rate"].max()):
        yield (
            f"The best rate, {rate_text(analysis.best_rate)}, is an end of the grid: a better one may lie beyond it; "
            f"{WAY_OUT} there."
        )
    if not analysis.edge.reached:
        yield "The edge of stability was not reached: the sensitivity leaves out what lies beyond it."
    for _, row in trials[trials["class"].isna()].iterrows():
        reason = f" ({row['message']})" if isinstance(row["message"], str) else ""
        yield f"{row['trial']}: {str(row['outcome']).replace('_', ' ')}{reason}; it is in no mean."
    if note := machine_note(records):
        yield note
