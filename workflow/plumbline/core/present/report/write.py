"""Stage `core.present.report.write`: REPORT.md and report.html, from what is there of all studies."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markdown_it import MarkdownIt
from markupsafe import Markup

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, write_text
from plumbline.core.present.formatting import outcome_label, plural
from plumbline.core.present.report.chapters import Chapter, ReportSpec
from plumbline.core.present.report.found import Found, Origin, find
from plumbline.core.run.stage import stage

NAMED = 3
"""Commits or machines that are named in one line."""


@stage
def write_report(spec: ReportSpec, results: Path, texts: Path, options: str, output: Path) -> None:
    """Writes the page `output` with all figures inside it, and REPORT.md with the findings beside it.

    results: the folder with the chapters' files; a chapter without findings is named as not run. texts: the folder
    with captions, headlines.yaml and the page's template. options: what the commands that rebuild a file need besides,
    as `--configfile mine.yaml`. Raises UserError when there are no findings at all.
    """
    phrases = yaml.safe_load((texts / "headlines.yaml").read_text(encoding="utf-8"))
    found = [find(chapter, results, texts, phrases.get(chapter.study, ())) for chapter in spec.chapters]
    if not any(found):
        raise UserError(f"nothing to report, as {results}/ holds no findings yet: run make run first")

    def command(target: str) -> str:
        return f"snakemake --cores all {target} {options}".strip()

    both = list(zip(spec.chapters, found, strict=True))
    write_text(output.with_name("REPORT.md"), markdown(both, results, command))
    config = results / "config.json"
    settings = read_json(config) if config.exists() else None
    write_text(output, page(both, results, command, settings, (texts / "page.html.j2").read_text(encoding="utf-8")))


def markdown(found: Sequence[tuple[Chapter, Found | None]], results: Path, command: Callable[[str], str]) -> str:
    """REPORT.md: of each chapter its question, headlines, origin and findings, or how to run it."""
    parts = ["# Findings of all studies", "Figures and tables: report.html, in the same folder."]
    for chapter, there in found:
        parts.append(f"## {chapter.title}: {chapter.question}")
        if there is None:
            parts.append(f"Not run yet, or not finished: `{command(chapter.study)}` runs it.")
            continue
        parts += ["\n".join(f"- **{sentence}**" for sentence in there.headlines)] if there.headlines else []
        where = results / chapter.findings
        parts += [f"From `{where}`: {origin_text(there.origin)}. Rebuild it with `{command(str(where))}`."]
        parts.append(re.sub(r"^## ", "### ", there.findings, flags=re.MULTILINE))
    return "\n\n".join(parts) + "\n"


def origin_text(origin: Origin) -> str:
    """`46 trials (44 ok, 2 diverged), commit 110c81743378, AMD EPYC, 2 cores`."""
    outcomes = ", ".join(f"{count} {outcome_label(outcome)}" for outcome, count in origin.outcomes.items())
    noun = "commit" if len(origin.commits) == 1 else "commits"
    return f"{plural(origin.trials, 'trial')} ({outcomes}), {noun} {_first(origin.commits)}, {_first(origin.machines)}"


def page(
    found: Sequence[tuple[Chapter, Found | None]],
    results: Path,
    command: Callable[[str], str],
    settings: Mapping[str, Any] | None,
    template: str,
) -> str:
    """report.html: one page that needs nothing beside it."""
    text = MarkdownIt("commonmark", {"html": False})
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["markdown"] = lambda source: Markup(text.render(re.sub("^## ", "#### ", source, flags=re.M)))
    environment.filters["inline"] = lambda source: Markup(text.renderInline(source))
    environment.filters["anchor"] = lambda title: title.replace(": ", "-")
    environment.filters["origin"] = origin_text
    environment.filters["stem"] = lambda path: Path(path).stem.replace("_", " ").capitalize()
    config = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=110) if settings else None
    return environment.from_string(template).render(found=found, results=str(results), command=command, config=config)


def _first(values: Sequence[str]) -> str:
    more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
    return "; ".join(values[:NAMED]) + more


if __name__ == "__main__":
    write_report.main()
