"""What is there of a chapter: its sentences, figures, tables, and where its trials ran."""

import base64
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbline.core.files import read_json
from plumbline.core.present.report.chapters import Chapter, title_and_caption
from plumbline.core.present.tables import Table, read_latex
from plumbline.core.run.record import hardware


@dataclass(frozen=True)
class Figure:
    """A figure with its title and caption, a paragraph of Markdown."""

    path: str
    title: str
    caption: str
    data: str | None
    """The PNG as a data URI; None where it has not been drawn yet."""


@dataclass(frozen=True)
class Origin:
    """Where a chapter's records come from."""

    trials: int
    outcomes: Mapping[str, int]
    commits: Sequence[str]
    machines: Sequence[str]
    versions: Sequence[str]
    first: str
    last: str
    """When the first and the last trial began, ISO 8601 in UTC."""


@dataclass(frozen=True)
class Found:
    """A chapter whose findings are there."""

    chapter: Chapter
    findings: str
    """Markdown: a heading of level 2 for each question, and a list of sentences below it."""
    headlines: Sequence[str]
    """The sentences for the front page."""
    figures: Sequence[Figure]
    tables: Sequence[tuple[str, Table]]
    """Each with its path."""
    origin: Origin


def find(chapter: Chapter, results: Path, captions: Path, phrases: Sequence[str]) -> Found | None:
    """What is there of `chapter` below `results`; None where its findings are not.

    captions: the folder with a caption `<study>-<figure>.rst` for each figure. phrases: of each, the first finding
    that contains it is a headline.
    """
    written, records = results / chapter.findings, results / chapter.records
    if not (written.exists() and records.exists()):
        return None
    _, _, findings = written.read_text(encoding="utf-8").partition("\n")
    merged = read_json(records)
    sentences = re.findall(r"^- (.+)$", findings, flags=re.MULTILINE)
    first = (next((one for one in sentences if phrase in one), None) for phrase in phrases)
    return Found(
        chapter=chapter,
        findings=findings.strip(),
        headlines=list(dict.fromkeys(filter(None, first))),
        figures=[_figure(path, results, caption_of(chapter.study, path, captions)) for path in chapter.figures],
        tables=[(path, read_latex(results / path)) for path in chapter.tables if (results / path).exists()],
        origin=origin([*merged["trials"], *merged.get("workloads", [])]),
    )


def caption_of(study: str, figure: str, captions: Path) -> Path:
    """The file with the caption of a study's `figure`, a path."""
    return captions / f"{study}-{Path(figure).stem}.rst"


def origin(trials: Sequence[Mapping[str, Any]]) -> Origin:
    """Where the records `trials`, as JSON values, come from; what differs among them is listed, most frequent first."""
    machines = [trial["machine"] for trial in trials]
    began = sorted(trial["started"] for trial in trials)
    return Origin(
        trials=len(trials),
        outcomes=Counter(trial["outcome"] for trial in trials),
        commits=_distinct(machine.get("git_commit") or "not in a git repository" for machine in machines),
        machines=_distinct(hardware(trial["machine"], trial.get("device")) for trial in trials),
        versions=_distinct(_versions(machine) for machine in machines),
        first=began[0],
        last=began[-1],
    )


def _distinct(values: Iterator[str]) -> list[str]:
    return [value for value, _ in Counter(values).most_common()]


def _versions(machine: Mapping[str, Any]) -> str:
    packages = {name: number for name, number in machine.get("versions", {}).items() if number}
    return ", ".join(f"{name} {number}" for name, number in {"Python": machine.get("python"), **packages}.items())


def _figure(path: str, results: Path, caption: Path) -> Figure:
    text = caption.read_text(encoding="utf-8") if caption.exists() else ""
    title, text = title_and_caption(text, Path(path).stem)
    file = results / path
    data = base64.b64encode(file.read_bytes()).decode() if file.exists() else None
    return Figure(path=path, title=title, caption=text, data=data and f"data:image/png;base64,{data}")
