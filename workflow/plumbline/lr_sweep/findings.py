"""The study's questions, answered in sentences with the numbers of its tables."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.tables import number, with_interval
from plumbline.lr_sweep.analysis import Analysis, Interval
from plumbline.lr_sweep.frames import overall_speed
from plumbline.lr_sweep.records import CLASSES, machine_note


def findings(analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame, records: Sequence[dict[str, Any]]) -> str:
    """Markdown: the best rate and the optimum, the edge, the sensitivity, what became of each trial, cautions."""
    sections = {
        "Which learning rate is best": _best(analysis, trials, rates),
        "Where is the edge of stability": _edge(analysis, rates),
        "How much does the choice matter": _sensitivity(analysis, rates),
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


def rate_interval(value: Interval) -> str:
    """`0.0316 [0.0301, 0.0342]`; `0.0316` when one seed gave no interval."""
    if np.isnan(value.low):
        return rate_text(value.value)
    return f"{rate_text(value.value)} [{rate_text(value.low)}, {rate_text(value.high)}]"


def loss_text(row: pd.Series, name: str = "final_validation_loss") -> str:
    """`3.214 [3.200, 3.228]`, in nats."""
    return with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"], digits=3)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _best(analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame) -> Iterator[str]:
    if np.isnan(analysis.best_rate):
        yield "No rate converged for all of its seeds: there is no best one."
        return
    row = rates[rates["rate"] == analysis.best_rate].iloc[0]
    yield (
        f"Of {_plural(len(rates), 'rate')}, {rate_text(analysis.best_rate)} has the lowest final validation loss: "
        f"{loss_text(row)} nats per token, mean over {_plural(int(row['with_loss']), 'seed')}."
    )
    if analysis.bracketed:
        yield (
            f"The optimum, vertex of the parabola in log rate through it and its two neighbours, is "
            f"{rate_interval(analysis.optimum)}."
        )
    else:
        yield "It lacks a converged neighbour on at least one side, so that no parabola was laid."
    entropy = trials["unigram_entropy_nats"].dropna()
    if len(entropy):
        gain = entropy.iloc[0] - row["final_validation_loss"]
        yield (
            f"That is {number(gain, 3)} nats below the corpus's unigram entropy, {entropy.iloc[0]:.3f} nats, which "
            "is the loss of a model that knows only how frequent each token is."
        )


def _edge(analysis: Analysis, rates: pd.DataFrame) -> Iterator[str]:
    if not analysis.edge.reached:
        highest = rate_text(rates["rate"].max())
        if np.isnan(analysis.best_rate):
            yield "Not reached: without a rate that converged there is no last good one."
        else:
            yield f"Not reached: no rate above the best one diverged, up to {highest}."
        return
    edge = analysis.edge
    yield (
        f"The edge lies between {rate_text(edge.last_good)}, the last good rate, and {rate_text(edge.first_bad)}, the "
        f"first bad one: {rate_text(edge.rate)}, their geometric mean."
    )
    where = f"{analysis.edge_over_best:.3g} times the best rate"
    if analysis.bracketed:
        where += f" and {analysis.edge_over_optimum:.3g} times the optimum"
    yield f"That is {where}."


def _sensitivity(analysis: Analysis, rates: pd.DataFrame) -> Iterator[str]:
    value = analysis.sensitivity
    if np.isnan(value.value) or len(rates) < 2:
        return
    low, high = rate_text(rates["rate"].min()), rate_text(rates["rate"].max())
    yield (
        f"Learning-rate sensitivity (Wortsman et al., arXiv 2309.14322): "
        f"{with_interval(value.value, value.low, value.high, digits=3)} nats, the mean over the {len(rates)} rates "
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
            f"{overall_speed(trials):,.0f} tokens per second of training over all trials; a single trial "
            f"{speed.min():,.0f} to {speed.max():,.0f}."
        )


def _cautions(
    analysis: Analysis, trials: pd.DataFrame, rates: pd.DataFrame, records: Sequence[dict[str, Any]]
) -> Iterator[str]:
    seeds = trials["seed"].nunique()
    if seeds == 1:
        yield "There is one seed: no interval can be given, and a difference between rates may be chance."
    elif seeds < 5:
        yield f"There are {seeds} seeds: the intervals over them are rough."
    if not np.isnan(analysis.best_rate) and analysis.best_rate in (rates["rate"].min(), rates["rate"].max()):
        yield f"The best rate, {rate_text(analysis.best_rate)}, is an end of the grid: a better one may lie beyond it."
    if not analysis.edge.reached:
        yield "The edge of stability was not reached: the sensitivity leaves out what lies beyond it."
    for _, row in trials[trials["class"].isna()].iterrows():
        reason = f" ({row['message']})" if isinstance(row["message"], str) else ""
        yield f"{row['trial']}: {str(row['outcome']).replace('_', ' ')}{reason}; it is in no mean."
    if note := machine_note(records):
        yield note
