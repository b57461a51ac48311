"""Two results folders against each other: which trials became faster or slower beyond noise. Light to import."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError
from plumbline.core.plan.target import differences
from plumbline.core.run.record import Outcome, machine_name
from plumbline.core.statistics.rates import rate, rate_ratio
from plumbline.throughput.analysis.quality import DISTURBANCES, disturbances
from plumbline.throughput.analysis.rates import timed
from plumbline.throughput.analysis.records import read_trial

DIRECTIONS = ("slower", "faster", "changed", "equal", "unclear", "unknown", "other model")
REFERENCE = "reference_sha256"
CHOSEN = ("dtype", "attention", "threads", "compile")
UNTOLD = {"code": "code", "inputs": "what it reads"}
"""Fields of a spec that are digests: that they differ is said, not how."""


def compare(first: Path, second: Path, threshold: float) -> dict[str, Any]:
    """How the trials below `second` differ from those of the same name below `first`, as plain JSON.

    A trial is `slower` or `faster` when the whole bootstrap 95% interval of the ratio of tokens per second, second
    over first, lies beyond the threshold; `equal` when it lies whole within; `unclear` when neither, or when a side was
    measured while something disturbed its speed; `unknown` when one batch gave no interval. A trial that went well on
    one side only is `slower` or `faster` too; one whose outcome changed from one failure to another is `changed`. A
    model of another size is no comparison: `other model`. Retrained weights of the same shapes are as fast, and are
    compared; `retrained` counts them.

    Raises UserError when a folder holds no trial, or when the two have none in common that can be compared.
    """
    if threshold < 0:
        raise UserError(f"compare: --threshold: {threshold:g} is below 0")
    folders = [trials_folder(folder) for folder in (first, second)]
    ours, theirs = (_read(folder) for folder in folders)
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise UserError(f"compare: no trial of {folders[0]} is also in {folders[1]}")
    pairs = [_pair(ours[name], theirs[name], threshold) for name in shared]
    if all(pair["first_outcome"] != Outcome.OK and pair["second_outcome"] != Outcome.OK for pair in pairs):
        raise UserError(f"compare: none of the {len(shared)} trials in both folders went well in either of them")
    counts = Counter(pair["direction"] for pair in pairs)
    return {
        "first": str(folders[0]),
        "second": str(folders[1]),
        "threshold": threshold,
        "counts": {name: counts[name] for name in DIRECTIONS},
        "trials": sorted(pairs, key=lambda pair: (DIRECTIONS.index(pair["direction"]), pair["ratio"] or 0.0)),
        "only_in_first": [name for name in ours if name not in theirs],
        "only_in_second": [name for name in theirs if name not in ours],
        "retrained": sum(_retrained(ours[name], theirs[name]) for name in shared),
        "settings": _clauses([_spec_differences(ours[name], theirs[name]) for name in shared]),
        "machines": _clauses([_machine_differences(ours[name], theirs[name]) for name in shared]),
    }


def trials_folder(folder: Path) -> Path:
    """The folder with trials that `folder` means: its own trials/, its study's, or its results' (as of a worktree).

    Raises UserError when there is none.
    """
    for below in (".", "throughput", "results/throughput"):
        if (folder / below / "trials").is_dir():
            return folder / below
    exists = "holds no trials of throughput" if folder.is_dir() else "does not exist"
    raise UserError(f"compare: {folder} {exists}; name a results folder, or one that holds results/throughput")


def exit_status(comparison: dict[str, Any]) -> int:
    """1 when something became slower, 2 when nothing could be told, as when all models are others, else 0."""
    counts = comparison["counts"]
    if counts["slower"]:
        return 1
    return 0 if any(counts[name] for name in ("faster", "equal", "changed")) else 2


def on_models(comparison: dict[str, Any]) -> Iterator[str]:
    """What must be known before the table is read: that the models are not the same."""
    counts, told = comparison["counts"], comparison["trials"]
    if counts["other model"]:
        yield f"The model is another one in {counts['other model']} of {len(told)} trials: they are not compared."
    if comparison["retrained"]:
        yield (
            f"The model has other weights in {comparison['retrained']} of {len(told)} trials: of the same shapes, so "
            "that speeds compare."
        )


def in_words(comparison: dict[str, Any]) -> Iterator[str]:
    """What stands around the table of trials that differ, a line each."""
    counts, threshold, told = comparison["counts"], comparison["threshold"], comparison["trials"]
    text = ", ".join(f"{counts[name]} {name}" for name in DIRECTIONS if counts[name])
    yield f"{sum(counts.values())} trials in both: {text}."
    yield (
        f"Slower or faster: the whole 95% interval of the ratio of tokens/s lies beyond {threshold:.3g} "
        f"(above {1 + threshold:.3g} or below {1 / (1 + threshold):.3g}). It covers the spread of batches within the "
        "two processes."
    )
    if disturbed := sum(pair["disturbed"] for pair in told):
        yield (
            f"{disturbed} of {len(told)} trials were measured while something disturbed their speed, before or after; "
            f"they get no verdict on it. {'; '.join(f'{name}: {text}' for name, text in DISTURBANCES.items())}."
        )
    for key, where in (("only_in_first", comparison["first"]), ("only_in_second", comparison["second"])):
        if names := comparison[key]:
            yield f"Only in {where}: {_listed(names)}."
    for what, clauses in (("Settings", comparison["settings"]), ("Machines", comparison["machines"])):
        for trials in dict.fromkeys(clauses.values()):
            alike = "; ".join(clause for clause, count in clauses.items() if count == trials)
            yield f"{what} differ in {trials} of {len(told)} trials: {alike}"
    if comparison["machines"]:
        yield "The machines differ: what is faster or slower may be theirs."


def differing(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials that the table shows: all but equal ones."""
    return [pair for pair in comparison["trials"] if pair["direction"] != "equal"]


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    """Trial -> record, by the paths of their files."""
    records = (read_trial(path) for path in sorted((folder / "trials").rglob("[!.]*.json")))
    found = {record["trial"]: record for record in records}
    if not found:
        raise UserError(f"compare: {folder}/trials holds no record; run the study there first")
    return found


def _pair(first: dict[str, Any], second: dict[str, Any], threshold: float) -> dict[str, Any]:
    """One trial on both sides: outcomes, rates, the ratio second over first, direction, and what else changed."""
    pair: dict[str, Any] = {"trial": first["trial"], "disturbed": bool(disturbances(first) or disturbances(second))}
    rates = []
    for name, record in (("first", first), ("second", second)):
        batches = timed(record)
        good = record["outcome"] == Outcome.OK and len(batches) > 0
        rates.append(batches if good else None)
        pair[f"{name}_outcome"] = record["outcome"]
        pair[f"{name}_tokens_per_second"] = rate(batches) if good else None
    ours, theirs = rates
    if ours is not None and theirs is not None:
        ratio = rate_ratio(theirs, ours)
        ends = ratio.as_json()
        direction = ratio.direction(threshold)
        if pair["disturbed"] and direction != "unknown":
            direction = "unclear"
        if _other_model(first, second):
            direction = "other model"
        pair |= {"direction": direction, "ratio": ends["value"], "low": ends["low"]}
        pair |= {"high": ends["high"], "notes": list(_notes(first, second))}
        return pair
    went_well = first["outcome"] == Outcome.OK, second["outcome"] == Outcome.OK
    if went_well[0] != went_well[1]:
        direction = "faster" if went_well[1] else "slower"
        if pair["disturbed"] and Outcome.TIMEOUT in (first["outcome"], second["outcome"]):
            direction = "unclear"  # a busy machine is reason enough to run out of time
    else:
        direction = "equal" if first["outcome"] == second["outcome"] else "changed"
    if _other_model(first, second):
        direction = "other model"
    note = [f"{first['outcome']} → {second['outcome']}"] if first["outcome"] != second["outcome"] else []
    note += _disturbed(first, second) if direction == "unclear" else []
    return pair | {"direction": direction, "ratio": None, "low": None, "high": None, "notes": note}


def _other_model(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether the two generate with models of other names, or of other tokens by the reference and other sizes.

    A decode step's FLOPs are the size that does not depend on the dtype; how they are counted may change with the code,
    hence the tokens, which one model gives again.
    """
    if first["model"] != second["model"]:
        return True
    sizes, tokens = ([record.get(name) for record in (first, second)] for name in ("decode_step_flops", REFERENCE))
    return None not in sizes and sizes[0] != sizes[1] and tokens[0] != tokens[1]


def _retrained(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether a model of the same size answers the same prompts with other tokens by the reference."""
    tokens = [record.get(REFERENCE) for record in (first, second)]
    seeds = [(record.get("spec") or {}).get("seed") for record in (first, second)]  # another one asks other prompts
    return not _other_model(first, second) and None not in tokens and tokens[0] != tokens[1] and seeds[0] == seeds[1]


def _disturbed(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Which side was measured while what disturbed it."""
    sides = (("before", disturbances(first)), ("after", disturbances(second)))
    return [f"{side}: {', '.join(names)}" for side, names in sides if names]


def _notes(first: dict[str, Any], second: dict[str, Any]) -> Iterator[str]:
    """What else a good trial has otherwise than before: how it computes, and its tokens."""
    yield from _disturbed(first, second)
    old, new = ((record.get("choice") or {}) for record in (first, second))
    for name in CHOSEN:
        if old.get(name) != new.get(name):
            yield f"{name} {old.get(name)} → {new.get(name)}"
    if first.get("tokens_sha256") != second.get("tokens_sha256"):
        yield "other tokens"


def _spec_differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    old, new = ((record.get("spec") or {}) for record in (first, second))
    told = [{key: value for key, value in spec.items() if key not in UNTOLD} for spec in (old, new)]
    return differences(told[0], told[1]) + [name for key, name in UNTOLD.items() if old.get(key) != new.get(key)]


def _machine_differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    reached = first.get("device") and second.get("device")  # a trial may end before it has a device
    names = [machine_name(record if reached else record | {"device": None}) for record in (first, second)]
    found = [f"{names[0]} → {names[1]}"] if names[0] != names[1] else []
    versions = [(record["machine"].get("versions") or {}) for record in (first, second)]
    return found + differences(versions[0], versions[1])


def _clauses(found: list[list[str]]) -> dict[str, int]:
    """Clause -> in how many trials, the most frequent first."""
    return dict(Counter(clause for clauses in found for clause in clauses).most_common())


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
