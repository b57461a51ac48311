"""Compares two results folders: which trials became faster or slower beyond noise. Light to import."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from plumbline.core.errors import UserError
from plumbline.core.present.formatting import plural
from plumbline.core.run.record import Outcome
from plumbline.core.run.record_differences import (
    clause_counts,
    clause_lines,
    listed,
    machine_differences,
    spec_differences,
)
from plumbline.core.statistics.rates import Ratio, rate, rate_ratio
from plumbline.throughput.analysis.quality import NOISY, is_noisy
from plumbline.throughput.analysis.rates import timed
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.record import TrialRecord

PROCESSES = 0.03
"""Two processes of one trial may differ by this share, so less than that is no difference."""
DIRECTIONS = ("slower", "faster", "changed", "equal", "unclear", "unknown", "other model")


def compare(first: Path, second: Path, threshold: float) -> dict[str, Any]:
    """How the trials in `second` differ from those of the same name in `first`, as plain JSON.

    A trial is `slower` or `faster` when the whole bootstrap 95% interval of the ratio of tokens per second, second
    over first, is beyond the threshold; `equal` when it is wholly within, or when both sides have the same batches,
    as a record and its copy do; `unclear` when neither, or when a side is noisy; `unknown` when a single batch gave no
    interval. A trial that succeeded on one side only is `slower` or
    `faster` too; one whose outcome changed from one failure to another is `changed`. Models of different sizes are not
    compared: `other model`. Retrained weights of the same shapes are equally fast, so they are compared, and
    `retrained` counts them.

    Raises UserError when a folder holds no trial, or when the two have none in common that can be compared.
    """
    if threshold < 0:
        raise UserError(f"compare: --threshold: {threshold:g} is below 0")
    folders = [trials_folder(folder) for folder in (first, second)]
    before, after = (read_trials(folder) for folder in folders)
    shared = [name for name in before if name in after]
    if not shared:
        raise UserError(f"compare: no trial of {folders[0]} is also in {folders[1]}")
    pairs = [_pair(before[name], after[name], threshold) for name in shared]
    if all(pair["first_outcome"] != Outcome.OK and pair["second_outcome"] != Outcome.OK for pair in pairs):
        raise UserError(f"compare: none of the {len(shared)} trials in both folders succeeded in either of them")
    counts = Counter(pair["direction"] for pair in pairs)
    return {
        "first": str(folders[0]),
        "second": str(folders[1]),
        "threshold": threshold,
        "counts": {name: counts[name] for name in DIRECTIONS},
        "trials": sorted(pairs, key=lambda pair: (DIRECTIONS.index(pair["direction"]), pair["ratio"] or 0.0)),
        "only_in_first": [name for name in before if name not in after],
        "only_in_second": [name for name in after if name not in before],
        "retrained": sum(_retrained(before[name], after[name]) for name in shared),
        "settings": clause_counts([spec_differences(before[name], after[name]) for name in shared]),
        "machines": clause_counts([machine_differences(before[name], after[name]) for name in shared]),
    }


def trials_folder(folder: Path) -> Path:
    """The folder that holds trials/: `folder` itself, its throughput/, or its results/throughput/ (of a worktree).

    Raises UserError when there is none.
    """
    for below in (".", "throughput", "results/throughput"):
        if (folder / below / "trials").is_dir():
            return folder / below
    exists = "holds no trials of throughput" if folder.is_dir() else "does not exist"
    raise UserError(f"compare: {folder} {exists}; name a results folder, or one that holds results/throughput")


def exit_status(comparison: dict[str, Any]) -> int:
    """1 when something became slower, 2 when everything is inconclusive or another model, else 0."""
    counts = comparison["counts"]
    if counts["slower"]:
        return 1
    return 0 if any(counts[name] for name in ("faster", "equal", "changed")) else 2


def on_models(comparison: dict[str, Any]) -> Iterator[str]:
    """What a reader must know before the table: that the models differ."""
    counts, count = comparison["counts"], len(comparison["trials"])
    if counts["other model"]:
        yield f"{counts['other model']} of {count} trials use a different model and are not compared."
    if comparison["retrained"]:
        yield (
            f"{comparison['retrained']} of {count} trials use retrained weights of the same shapes: their speeds are "
            "comparable."
        )


def summary_lines(comparison: dict[str, Any]) -> Iterator[str]:
    """The sentences below the table."""
    counts, threshold, pairs = comparison["counts"], comparison["threshold"], comparison["trials"]
    text = ", ".join(f"{counts[name]} {name}" for name in DIRECTIONS if counts[name])
    yield f"{sum(counts.values())} trials in both: {text}."
    yield (
        f"Slower or faster: the whole 95% interval of the ratio of tokens/s is beyond {threshold:.3g} "
        f"(above {1 + threshold:.3g} or below {1 / (1 + threshold):.3g}). It covers the spread of batches within the "
        "two processes, but not how the machine changed between the two runs: add --live to measure both sides now, "
        "in turn."
    )
    if same := sum(pair["same_batches"] for pair in pairs):
        yield f"The batches of {plural(same, 'trial')} of {len(pairs)} are the same on both sides."
    if noisy := sum(pair["noisy"] for pair in pairs):
        yield (
            f"{noisy} of {len(pairs)} trials are noisy, before or after, and get no verdict on their speed: {NOISY}."
        )
    for key, where in (("only_in_first", comparison["first"]), ("only_in_second", comparison["second"])):
        if names := comparison[key]:
            yield f"Only in {where}: {listed(names)}."
    yield from clause_lines("Settings", comparison["settings"], len(pairs))
    yield from clause_lines("Machines", comparison["machines"], len(pairs))
    if comparison["machines"]:
        yield "The machines differ, which may be why trials are faster or slower."


def differing(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials for the table: all but equal ones."""
    return [pair for pair in comparison["trials"] if pair["direction"] != "equal"]


def read_trials(folder: Path) -> dict[str, TrialRecord]:
    """Trial -> record, by the paths of their files."""
    records = (TrialRecord.read(path) for path in sorted((folder / "trials").rglob("[!.]*.json")))
    found = {record.trial: record for record in records}
    if not found:
        raise UserError(f"compare: {folder}/trials holds no record; run the study there first")
    return found


def _pair(first: TrialRecord, second: TrialRecord, threshold: float) -> dict[str, Any]:
    """One trial on both sides: outcomes, rates, the ratio second over first, direction, and what else changed."""
    pair: dict[str, Any] = {"trial": first.trial, "noisy": is_noisy(first) or is_noisy(second), "same_batches": False}
    rates = []
    for name, record in (("first", first), ("second", second)):
        batches = timed(record)
        good = record.ok and len(batches) > 0
        rates.append(batches if good else None)
        pair[f"{name}_outcome"] = record.outcome
        pair[f"{name}_tokens_per_second"] = rate(batches) if good else None
    before, after = rates
    if before is not None and after is not None:
        pair["same_batches"] = np.array_equal(before, after)
        pair["noisy"] = pair["noisy"] and not pair["same_batches"]
        ratio = Ratio(value=1.0, low=1.0, high=1.0) if pair["same_batches"] else rate_ratio(after, before)
        ends = ratio.as_json()
        direction = ratio.direction(threshold)
        if pair["noisy"] and direction != "unknown":
            direction = "unclear"
        notes = list(_notes(first, second))
    else:
        ends = {"value": None, "low": None, "high": None}
        direction = _direction_of_outcomes(first, second, pair["noisy"])
        notes = [f"{first.outcome} → {second.outcome}"] if first.outcome != second.outcome else []
    if not same_model(first, second):
        direction = "other model"
    if direction == "unclear" and ends["value"] is None:
        notes += _noise(first, second)
    ratios = {"ratio": ends["value"], "low": ends["low"], "high": ends["high"]}
    return pair | {"direction": direction, **ratios, "notes": notes}


def _direction_of_outcomes(first: TrialRecord, second: TrialRecord, noisy: bool) -> str:
    """The direction of a trial that failed on at least one side."""
    if first.ok == second.ok:
        return "equal" if first.outcome == second.outcome else "changed"
    if noisy and Outcome.TIMEOUT in (first.outcome, second.outcome):
        return "unclear"  # a busy machine may be why it timed out
    return "faster" if second.ok else "slower"


def same_model(first: TrialRecord, second: TrialRecord) -> bool:
    """Whether the models have one name, and the same reference tokens or the same size.

    A decode step's FLOPs are the size that does not depend on the dtype. How they are counted may change with the code,
    hence the tokens, which the same model reproduces.
    """
    if first.model != second.model:
        return False
    sizes = first.decode_step_flops, second.decode_step_flops
    return None in sizes or sizes[0] == sizes[1] or first.reference_sha256 == second.reference_sha256


def _retrained(first: TrialRecord, second: TrialRecord) -> bool:
    """Whether a model of the same size answers the same prompts with other tokens, according to the reference."""
    tokens = first.reference_sha256, second.reference_sha256
    same_prompts = first.spec.get("seed") == second.spec.get("seed")
    return same_model(first, second) and None not in tokens and tokens[0] != tokens[1] and same_prompts


def _noise(first: TrialRecord, second: TrialRecord) -> list[str]:
    """Which side is noisy."""
    return [f"noisy {side}" for side, record in (("before", first), ("after", second)) if is_noisy(record)]


def _notes(first: TrialRecord, second: TrialRecord) -> Iterator[str]:
    """What else changed in a successful trial: its noise, how it computes, its tokens."""
    yield from _noise(first, second)
    for name in EngineConfig.model_fields:
        old, new = first.config_value(name), second.config_value(name)
        if old != new:
            yield f"{name} {old} → {new}"
    if first.tokens_sha256 != second.tokens_sha256:
        yield "other tokens"
