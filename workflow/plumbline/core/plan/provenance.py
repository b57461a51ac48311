"""What made an output: code closures kept by their digest, and stale outputs that Snakemake cannot see."""

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, write_json
from plumbline.core.plan.target import Target, canonical, differences
from plumbline.core.run.progress import read_journal
from plumbline.core.run.record import read_record

PIECE = 254
"""Longest file name that Snakemake gives a metadata record."""
FILES = {"files": "the content of a file in `code` changed", "inputs_fingerprint": "a file in `inputs` changed"}
"""Fields of a sweep's specs that are digests of a user's files."""
NAMED = 3
"""Changed definitions that are named in one line."""


def keep_code(targets: Iterable[Target], results: Path) -> None:
    """Writes each closure below `results`/code/ under the digest that specs name it by, unless it is there."""
    for target in targets:
        path = _code_path(results, json.loads(target.spec)["code"])
        if not path.exists():
            write_json(path, target.code)


def why_stale(spec: dict[str, Any] | None, target: Target, results: Path) -> list[str]:
    """Where the `spec` that made a target's output differs from today's, one clause for each; None: unknown."""
    if spec is None:
        return ["no spec is recorded for it"]
    today = json.loads(target.spec)
    not_compared = dict.fromkeys(("code", "inputs", "fingerprint", "records", *FILES))
    clauses = differences({**spec, **not_compared}, {**today, **not_compared})
    if spec.get("fingerprint") != today.get("fingerprint"):
        clauses.append("files: source files changed")
    clauses += [f"{key}: {what}" for key, what in FILES.items() if spec.get(key) != today.get(key)]
    if (records := spec.get("records")) != (now := today.get("records")):
        clauses.append(_record_changes(records or {}, now or {}))
    if spec.get("inputs") != today["inputs"]:
        clauses.append("inputs: upstream targets changed")
    if spec.get("code") != today["code"]:
        kept = _code_path(results, str(spec.get("code")))
        changes = _code_changes(read_json(kept), target.code) if kept.exists() else ""
        if changes and any(name in changes for name in target.code_files):  # which says the same of all files together
            clauses = [clause for clause in clauses if not clause.startswith("files: the content")]
        clauses.append(f"code: {changes or 'changed (the earlier definitions were not kept)'}")
    return clauses


def _record_changes(old: dict[str, str], new: dict[str, str]) -> str:
    """How many of the trials it merges differ: `trials: 4 added, 2 changed`."""
    changed = sum(old[name] != new[name] for name in old.keys() & new.keys())
    counts = {"added": len(new.keys() - old.keys()), "removed": len(old.keys() - new.keys()), "changed": changed}
    return "trials: " + ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def _code_changes(old: dict[str, str], new: dict[str, str]) -> str:
    """The first definitions that differ, and how many more: `core.files.atomic changed, … and 3 more`."""
    changed = [name for name in sorted(old.keys() & new.keys()) if old[name] != new[name]]
    added, removed = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
    kinds = {"changed": changed, "added": added, "removed": removed}
    words = [f"{name} {kind}" for kind, names in kinds.items() for name in names]
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more


def recorded_spec(target: Target, results: Path) -> dict[str, Any] | None:
    """The spec that made the output of `target` below `results`, from its record or its journal; None if unknown."""
    if target.is_trial:
        try:
            spec = read_record(target.file(results)).get("spec")
        except UserError:
            return None
        return spec if isinstance(spec, dict) else None
    last: dict[str, Any] | None = None
    started: dict[str, Any] | None = None
    for event in read_journal(results / target.study / target.journal):
        if event.get("event") == "start":
            started = event.get("spec")
        elif event.get("event") == "end":
            last = started
    return last


def is_current(target: Target, results: Path) -> bool:
    """Whether all outputs of `target` are there and were made from today's spec."""
    return (
        all(path.exists() for path in target.files(results))
        and canonical(recorded_spec(target, results)) == target.spec
    )


def read_contents(targets: Iterable[Target], results: Path) -> None:
    """Re-reads what the contents that `targets` depend on hold: their specs are those for it from now on."""
    for content in {id(content): content for target in targets for content in target.contents}.values():
        manifest = content.target.file(results)
        content.sha256 = read_json(manifest).get("content_sha256") if manifest.exists() else None


def readers_of_stale_contents(targets: Iterable[Target], results: Path) -> dict[str, int]:
    """study/stage of each content that is not current -> how many targets with an output depend on it."""
    made = [target for target in targets if target.file(results).exists()]
    readers = Counter(id(content.target) for target in made for content in target.contents)
    read = {id(content.target): content.target for target in made for content in target.contents}
    return {f"{of.study}/{of.path}": readers[key] for key, of in read.items() if not is_current(of, results)}


def outputs_without_metadata(targets: Iterable[Target], results: Path, metadata: Path) -> dict[Path, str]:
    """Outputs made from another spec than today's that Snakemake will not notice, each with why it is stale.

    Snakemake notices a changed spec by itself from its `metadata` folder; only outputs it has no metadata of
    (a deleted `.snakemake`, results copied from elsewhere) are looked at.
    """
    found = {}
    for target in targets:
        output = target.file(results)
        if not _has_metadata(output, metadata) and output.exists():
            if not is_current(target, results):
                found[output] = "; ".join(why_stale(recorded_spec(target, results), target, results))
            elif unsure := [item.target for item in target.contents if not is_current(item.target, results)]:
                found[output] = (
                    f"inputs: {unsure[0].study}/{unsure[0].path} will be rebuilt, and its content may change"
                )
    return found


def move_stale(without_metadata: Mapping[Path, str]) -> list[str]:
    """Renames each output to `<output>.stale`, so that it is rebuilt. Returns a line for each."""
    lines = []
    for output, why in without_metadata.items():
        output.replace(output.with_name(f"{output.name}.stale"))
        lines.append(f"{output} renamed to {output.name}.stale: {why}")
    return lines


def _code_path(results: Path, code: str) -> Path:
    return results / "code" / f"{code}.json"


def _has_metadata(output: Path, metadata: Path) -> bool:
    """Whether Snakemake's file backend holds a metadata record of `output`: its path in base64, in pieces if long."""
    name = base64.urlsafe_b64encode(str(output).encode()).decode()
    pieces = [name[start : start + PIECE] for start in range(0, len(name), PIECE)]
    return metadata.joinpath(*(f"@{piece}" for piece in pieces[:-1]), pieces[-1]).exists()
