"""The plan: every target of a study, and the spec that decides what it holds. Pure; read at parse time."""

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from plumbline.core.plan.canonical import canonical, digest
from plumbline.core.plan.kept_code import Root, kept_code_of
from plumbline.core.settings import Settings


@cache
def _code_digest(code: tuple[tuple[str, str], ...]) -> str:
    """The digest of a stage's code, computed once for all of its trials."""
    return digest(canonical(dict(code)))


class Spec(Settings):
    """What decides a target's content: settings (in subclasses), the code that runs, and what it reads."""

    code: str
    """Digest of the code that the stage reaches."""
    inputs: str
    """Digest over the specs of the targets it reads."""


class MergeSpec(Spec):
    """What decides what is computed from the records of trials."""

    records: dict[str, str]
    """Trial -> digest of the spec that its record must have been made from."""


@dataclass(eq=False)
class Content:
    """What a target of another study holds, for targets that do not care how it came about.

    In `reads` in place of the target, so that only another content makes the reader stale, not another history.
    """

    target: "Target"
    """Its rule is a checkpoint, and its output a JSON manifest with the `content_sha256` of what is read."""
    sha256: str | None = None
    """As the manifest says, once `read_contents` has read it; None while there is none."""


@dataclass(frozen=True)
class Target:
    """One file target: `output` made by `stage` from `settings` and the targets it `needs`."""

    study: str
    stage: str
    name: str
    """Unique within the stage; the rule's wildcards joined by "/"."""
    output: str
    """Path from results/<study>/; of what several studies read, ../NAME."""
    settings: Mapping[str, Any]
    reads: Mapping[str, Sequence["Target | Content"]] = field(default_factory=dict, kw_only=True)
    """Name of an input -> the targets whose outputs it stands for: the edges of the DAG, stated here alone."""
    beside: Mapping[str, Sequence[str]] = field(default_factory=dict, kw_only=True)
    """Name -> paths, as `output`, of what the same job writes besides; whoever reads the target gets them too."""
    merges: Sequence["Target"] = field(default=(), kw_only=True)
    """Trials whose records it merges: a MergeSpec's `records`."""
    modules: Sequence[str] = field(default=(), kw_only=True)
    """Modules that the stage loads by a computed name, as a registry does."""
    code_files: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """Path -> digest of a user's file of code in any language: a definition like those of `code`."""
    is_trial: bool = field(default=False, kw_only=True)
    optional: bool = field(default=False, kw_only=True)
    """Whether it may never be asked for: a trial that only an extension of the grid would add."""

    adds_targets: bool = field(default=False, kw_only=True)
    """Whether the plan has more targets once it is done."""

    _specs: dict[tuple[str | None, ...], str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def needs(self) -> list["Target"]:
        """The targets it reads and whose history it depends on, each once."""
        flat = (item for group in self.reads.values() for item in group)
        return list({id(item): item for item in flat if isinstance(item, Target)}.values())

    @cached_property
    def contents(self) -> list[Content]:
        """The contents that it, or what it needs, reads."""
        own = [item for group in self.reads.values() for item in group if isinstance(item, Content)]
        inherited = [content for need in self.needs for content in need.contents]
        return list({id(content): content for content in [*own, *inherited]}.values())

    @cached_property
    def code(self) -> dict[str, str]:
        """Definition -> digest, of what the stage reaches by name, of all in `modules`, and of `code_files`."""
        found = kept_code_of(*self.root)
        return {**found, **self.code_files} if self.code_files else found

    @property
    def root(self) -> Root:
        """Where its code begins: the stage's module, and `modules`."""
        return f"plumbline.{self.study}.{self.stage}", *self.modules

    @property
    def spec(self) -> str:
        """The spec as canonical JSON, for the contents as they were read last."""
        known = tuple(content.sha256 for content in self.contents)
        if known not in self._specs:
            read = [(name, item) for name, items in self.reads.items() for item in items]
            inputs = digest(
                "\n".join(f"{name}: {item.spec if isinstance(item, Target) else item.sha256}" for name, item in read)
            )
            records = {"records": recorded(self.merges)} if self.merges else {}
            head = {"code": _code_digest(tuple(self.code.items())), "inputs": inputs}
            self._specs[known] = canonical({**self.settings, **records, **head})
        return self._specs[known]

    def file(self, results: Path) -> Path:
        """Its output, below the folder `results`."""
        return Path(self._named(results, self.output))

    def files(self, results: Path) -> list[Path]:
        """Its output and all that lies beside it."""
        return [Path(name) for name in self.file_names(results)]

    def file_names(self, results: Path) -> list[str]:
        """`files` as text."""
        every = [self.output, *(path for paths in self.beside.values() for path in paths)]
        return [self._named(results, path) for path in every]

    def inputs(self, results: Path, added: Collection[str] = ()) -> dict[str, list[str]]:
        """Files it reads, by the names in `reads` and in `beside` of the targets read.

        Of optional targets only those named in `added` count.
        """
        found: dict[str, dict[str, None]] = {name: {} for name in self.reads}
        for name, items in self.reads.items():
            needs = [item.target if isinstance(item, Content) else item for item in items]
            for need in (need for need in needs if not need.optional or need.name in added):
                found[name][need._named(results, need.output)] = None
                for other, paths in need.beside.items():
                    found.setdefault(other, {}).update((need._named(results, path), None) for path in paths)
        return {name: list(files) for name, files in found.items()}

    def _named(self, results: Path, path: str) -> str:
        """The path as text: joined as Paths, those of 10,000 trials would take a second."""
        return os.path.normpath(f"{results}/{self.study}/{path}")

    @property
    def path(self) -> str:
        """Its stage and name, for messages: train/factor/all_layers/stats."""
        return f"{self.stage}/{self.name}".rstrip("/")

    @property
    def log(self) -> str:
        """Path of its log file below results/<study>/; the journal stands beside it as .jsonl."""
        return f"logs/{self.stage}/{self.name or 'all'}.log"

    @property
    def journal(self) -> str:
        """Path of its journal below results/<study>/."""
        return self.log.removesuffix(".log") + ".jsonl"


Targets = Mapping[tuple[str, str], Target]
"""(study.stage, name) -> target."""


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two specs differ, one clause a field: `training.hidden: 64 → 128`."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            clause
            for key in sorted(old.keys() | new.keys())
            for clause in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if old == new else [f"{path}: {_short(old)} → {_short(new)}"]


def study_files(targets: Iterable[Target], study: str, results: Path, added: Collection[str] = ()) -> list[str]:
    """Files of the study's trials and of what none of its targets reads; of optional targets only those in `added`."""
    own = [target for target in targets if target.study == study]
    read = {id(need) for target in own for need in target.needs}
    ends = [target for target in own if target.is_trial or id(target) not in read]
    chosen = [target for target in ends if not target.optional or target.name in added]
    return [name for target in chosen for name in target.file_names(results)]


def figures_target(study: str, figures: Sequence[str], summary: Target) -> Target:
    """The stage `figures` of `study`: each of `figures` as PDF and PNG, from the summary."""
    files = [f"figures/{name}.{suffix}" for suffix in ("pdf", "png") for name in figures]
    return Target(study, "figures", "", files[0], {}, reads={"results": [summary]}, beside={"figures": files[1:]})


def recorded(trials: Iterable[Target]) -> dict[str, str]:
    """Trial -> digest of its spec, for a stage that merges records and must refuse those of other specs."""
    return {trial.name: digest(trial.spec) for trial in trials}


def by_name(targets: Iterable[Target]) -> Targets:
    return {(f"{target.study}.{target.stage}", target.name): target for target in targets}


def _short(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
