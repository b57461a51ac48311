"""What Snakemake's rules take from the plan: the specs, inputs and outputs of a stage's targets.

Imported by the workflow alone; no stage knows Snakemake.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake.io import ancient

from plumbline.core.plan.batch import Batch, batches, is_older
from plumbline.core.plan.provenance import is_current, read_contents
from plumbline.core.plan.target import Target, Targets, study_files

Files = Callable[[Any], list[str]]
"""An input function: wildcards -> files."""
Added = Callable[[Any], Collection[str]]
"""Wildcards -> names of the optional targets that are asked for."""


def _none_added(wildcards: Any) -> Collection[str]:
    return ()


@dataclass(frozen=True)
class Rules:
    """The plan as rules read it; the plan may grow in place while the workflow runs."""

    plan: Sequence[Target]
    targets: Targets
    results: Path
    checkpoints: Any
    """Snakemake's: its rules by name, each of which raises what has Snakemake run it first."""
    forced: Callable[[], Collection[str]]
    """What Snakemake was told to make again, current or not."""
    _fresh: dict[int, bool] = field(default_factory=dict, init=False)
    """By the identity of a target."""

    def contents_of(self, stage: str) -> Files:
        """Manifests of the contents that specs of `stage` depend on, once there: then its jobs are planned again."""

        def manifests(wildcards: Any) -> list[str]:
            targets = [content.target for content in self.targets[stage, "/".join(wildcards)].contents]
            for target in targets:
                if not is_current(target, self.results):
                    getattr(self.checkpoints, f"{target.study}_{target.stage}").get()
            return [ancient(str(target.file(self.results))) for target in targets]  # only the spec makes a reader stale

        return manifests

    def spec_of(self, stage: str) -> Callable[[Any], str]:
        """The spec, as canonical JSON, of the target of `stage` that the wildcards name."""
        manifests = self.contents_of(stage)

        def spec(wildcards: Any) -> str:
            target = self.targets[stage, "/".join(wildcards)]
            if manifests(wildcards):
                read_contents([target], self.results)
            return target.spec

        return spec

    def inputs_of(self, stage: str, added: Added = _none_added) -> dict[str, Files]:
        """Named inputs of the targets of `stage`: what the wildcards' one reads; optional ones if `added`."""

        def files_under(name: str) -> Files:
            def files(wildcards: Any) -> list[str]:
                target = self.targets[stage, "/".join(wildcards)]
                contents = {str(file) for content in target.contents for file in content.target.files(self.results)}
                read = target.reads.get(name, target.needs)
                wait = any(isinstance(need, Target) and need.optional for need in read)
                found = target.inputs(self.results, added(wildcards) if wait else ()).get(name, [])
                return [ancient(file) if file in contents else file for file in found]

            return files

        targets = self._of(stage)
        contents = {"contents": self.contents_of(stage)} if any(target.contents for target in targets) else {}
        return contents | {name: files_under(name) for target in targets for name in target.inputs(self.results)}

    def outputs_of(self, study: str, added: Added = _none_added) -> list[list[str] | Files]:
        """All trials, tables and figures of a study, so that a deleted one is rebuilt; optional trials if `added`."""
        files = study_files(self.plan, study, self.results)
        known = set(files)

        def more(wildcards: Any) -> list[str]:
            found = study_files(self.plan, study, self.results, added(wildcards))
            return [file for file in found if file not in known]

        return [files, more]

    def batches_of(self, stage: str, per_job: int) -> list[Batch]:
        """The targets of `stage` in batches of `per_job`; none where each is a job."""
        return batches(self._of(stage), per_job)

    def inputs_of_batch(self, batch: Batch) -> dict[str, Files]:
        """Named inputs of a batch. Their times do not count if each of its targets is fresh by itself: what one of them
        reads may be newer than another."""

        def unless_fresh(files: list[str]) -> Files:
            return lambda wildcards: list(map(ancient, files)) if all(map(self._is_fresh, batch.targets)) else files

        return {name: unless_fresh(files) for name, files in batch.inputs(self.results).items()}

    def _is_fresh(self, target: Target) -> bool:
        """Whether nothing makes it again: nothing is forced, and it and all that it needs are current, not older than
        what they read."""
        if id(target) not in self._fresh:
            files, inputs = target.files(self.results), target.inputs(self.results)
            self._fresh[id(target)] = (
                not self.forced()
                and is_current(target, self.results)
                and all(map(self._is_fresh, target.needs))
                and not is_older(files, inputs)
            )
        return self._fresh[id(target)]

    def _of(self, stage: str) -> list[Target]:
        return [target for (of, _), target in self.targets.items() if of == stage]
