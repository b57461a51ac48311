"""What the report shows of each study: files that its plan names, in the order one reads them."""

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from plumbline.core.plan.target import Target
from plumbline.core.settings import Settings


class Chapter(Settings):
    """A study, or one sweep of the study `sweep`. Paths are relative to the results folder."""

    study: str
    title: str
    question: str
    records: str
    """The file with all records, which says when and where the trials ran."""
    findings: str
    figures: list[str]
    tables: list[str]


class ReportSpec(Settings):
    """What decides the report, beside the files that it shows."""

    code: str
    chapters: list[Chapter]


def chapters(targets: Sequence[Target], study: str, question: str) -> Iterator[Chapter]:
    """A chapter for each summary of `study`: its findings, and the figures and tables below the same folder."""
    files = [file for target in targets if target.study == study for file in target.files(Path())]
    texts = {file.parent: file for file in reversed(files) if file.suffix == ".md"}  # of several, the first one
    for folder, findings in reversed(texts.items()):
        inside = [file for file in files if file.parent.parent == folder]
        yield Chapter(
            study=study,
            title=str(folder).replace("/", ": "),
            question=question,
            records=str(folder / "results.json"),
            findings=str(findings),
            figures=[str(file) for file in inside if file.suffix == ".png"],
            tables=[str(file) for file in inside if file.suffix == ".tex"],
        )


def title_and_caption(text: str, name: str) -> tuple[str, str]:
    """The parts of a caption's file: its first line, if it is underlined, and the rest; else `name` is the title."""
    title, _, rest = text.partition("\n")
    line, _, caption = rest.partition("\n")
    if title and line and set(line.strip()) == {"="}:
        return title.strip(), caption.strip()
    return name.replace("_", " ").capitalize(), text.strip()


def given_options(configfiles: Sequence[str | Path], config: Sequence[str]) -> str:
    """The options of a Snakemake command that give it a config besides config.yaml, quoted for a shell."""
    files = [os.path.relpath(path) for path in configfiles]
    given = {"--configfile": files, "--config": config}
    return " ".join(f"{option} {shlex.join(values)}" for option, values in given.items() if values)
