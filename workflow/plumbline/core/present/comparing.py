"""`plumbline compare` of a study whose trials are compared by what they found: what differs beyond noise."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.markup import escape
from rich.table import Table

from plumbline.core.errors import UserError
from plumbline.core.present.answer import Answer
from plumbline.core.present.formatting import MISSING, outcome_label, p_text, plural
from plumbline.core.run.record import AnyRecord, Record
from plumbline.core.run.record_differences import (
    clause_counts,
    clause_lines,
    listed,
    machine_differences,
    spec_differences,
)
from plumbline.core.run.records import record_files
from plumbline.core.statistics.before_after import VERDICTS, Change, Measured, changes


def study_folder(folder: Path, study: str) -> Path:
    """The folder with the study's trials: `folder` itself, its <study>/, or its results/<study>/ (of a worktree).

    Raises UserError when there is none.
    """
    for below in (study, f"results/{study}"):
        if any(record_files(folder / below)):
            return folder / below
    if (first := next(record_files(folder), None)) and f'"study": "{study}"' in Path(first).read_text(encoding="utf-8"):
        return folder
    exists = f"holds no trials of {study}" if folder.is_dir() else "does not exist"
    raise UserError(f"compare: {folder} {exists}; name a results folder, or one that holds results/{study}")


def compared(
    model: type[AnyRecord],
    measured: Callable[[AnyRecord], Iterable[Measured]],
    folders: tuple[Path, Path],
    threshold: float | None,
    others: Mapping[type[Record], Callable[[Any], Iterable[Measured]]] = MappingProxyType({}),
    parts: Callable[[Any], Mapping[str, str]] = lambda record: {},
) -> Answer:
    """How the trials in the second of `folders` differ from those in the first.

    others: the study's other kinds of trials, and what is measured in each. parts: the outcomes of those parts of a
    trial that have one of their own, by name. threshold: relative difference that counts as equal; None counts only the
    same values as equal. Raises UserError when a folder holds no trials, or when the two have nothing in common.
    """
    study = model.model_fields["study"].default
    if threshold is not None and threshold < 0:
        raise UserError(f"compare: --threshold: {threshold:g} is below 0")
    places = [study_folder(folder, study) for folder in folders]
    models: list[type[Record]] = [model, *others]
    kinds = {str(one.model_fields["stage"].default): one for one in models}
    before, after = (_records(kinds, place) for place in places)
    shared = [name for name in before if name in after]
    if not shared:
        raise UserError(f"compare: no trial of {places[0]} is also in {places[1]}")

    def told(record: Any) -> Iterable[Measured]:
        return others.get(type(record), measured)(record)

    first, second = ([one for record in side.values() for one in told(record)] for side in (before, after))
    found = sorted(changes(first, second, threshold or 0.0), key=lambda change: VERDICTS.index(change.verdict))
    pairs = [(before[name], after[name]) for name in shared]
    ended = {name: ends for pair in pairs for name, ends in _outcomes(*pair, parts)}
    counts = Counter(change.verdict for change in found)
    values: dict[str, Any] = {"study": study, "first": str(places[0]), "second": str(places[1])}
    values |= {"threshold": threshold, "counts": {name: counts[name] for name in VERDICTS}}
    values |= {"changes": [_json(change) for change in found]}
    values["outcomes"] = {name: " → ".join(map(outcome_label, ends)) for name, ends in ended.items()}
    values |= {"only_in_first": [name for name in before if name not in after]}
    values |= {"only_in_second": [name for name in after if name not in before]}
    values["settings"] = clause_counts([spec_differences(*pair) for pair in pairs])
    values["machines"] = clause_counts([machine_differences(*pair) for pair in pairs])
    is_worse = counts["worse"] or counts["different"] or any(end != "ok" for _, end in ended.values())
    status = 1 if is_worse else 0 if counts["better"] or counts["equal"] or ended else 2
    shown = [change for change in found if change.verdict != "equal"]
    lines: list[str | Table] = [
        f"{places[0]} → {places[1]}",
        *([_table(shown)] if shown else []),
        *_sentences(values, len(shared)),
    ]
    return Answer(values, lines, status)


def _records(kinds: Mapping[str, type[Record]], folder: Path) -> dict[str, Any]:
    """Trial -> record, of the files that hold one. kinds: the stages that make them, the usual one first."""
    found = {}
    usual = next(iter(kinds.values()))
    for path in map(Path, record_files(folder)):
        text = path.read_text(encoding="utf-8", errors="replace")
        if '"trial":' in text:
            record = next((kind for stage, kind in kinds.items() if f'"stage": "{stage}"' in text), usual).read(path)
            found[record.trial] = record
    return found


def _outcomes(
    first: Record, second: Record, parts: Callable[[Any], Mapping[str, str]]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """The outcomes that changed, of the trial or, where it succeeded twice, of its parts: before and after."""
    if first.outcome != second.outcome:
        yield first.trial, (first.outcome, second.outcome)
    elif first.ok:
        before, after = parts(first), parts(second)
        for name in before:
            if before[name] != after.get(name, before[name]):
                yield f"{first.trial} {name}", (before[name], after[name])


def _json(change: Change) -> dict[str, Any]:
    """The change as JSON values: None for NaN."""
    values = asdict(change) | {"difference": change.difference}
    return {name: None if value != value else value for name, value in values.items()}


def _sentences(values: dict[str, Any], trials: int) -> Iterator[str]:
    counts, threshold = values["counts"], values["threshold"]
    text = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if counts[name])
    yield f"{plural(trials, 'trial')} in both" + (
        f", compared in {sum(counts.values())} numbers: {text}." if text else "."
    )
    beyond = f" and the 95% interval is beyond {100 * threshold:g}% of the value before" if threshold else ""
    yield (
        f"Better or worse: the difference is significant at 5% (paired by replicate where there are pairs, Holm's "
        f"correction over all numbers){beyond}. Unknown: one replicate, or differences that do not vary, allow no test;"
        " counts without noise need none."
    )
    if ended := values["outcomes"]:
        yield f"Outcomes that changed: {listed([f'{name} ({change})' for name, change in ended.items()])}."
    for key, where in (("only_in_first", values["first"]), ("only_in_second", values["second"])):
        if names := values[key]:
            yield f"Only in {where}: {listed(names)}."
    yield from clause_lines("Settings", values["settings"], trials)
    yield from clause_lines("Machines", values["machines"], trials)
    if values["machines"]:
        yield "The machines differ, which may be why the numbers do."


def _table(found: Iterable[Change]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "number", "", "before", "after", "difference", "95% interval", "p (Holm)", "replicates"):
        table.add_column(heading, justify="left" if heading in ("", "number") else "right", no_wrap=True)
    for change in found:
        ends = MISSING if change.low != change.low else f"[{change.low:+.3g}, {change.high:+.3g}]"
        means = (f"{change.before:.4g}", f"{change.after:.4g}", f"{change.difference:+.3g}")
        cells = (*means, escape(ends), p_text(change.p_value), str(change.replicates))
        table.add_row(escape(change.unit), change.measure, change.verdict, *cells)
    return table
