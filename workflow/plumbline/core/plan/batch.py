"""Batches: targets of one stage that one job makes, so that what they import is imported once."""

import glob
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plumbline.core.plan.provenance import is_current
from plumbline.core.plan.target import Target, canonical, digest

MADE, BEFORE = "made", "before"
"""Kinds of links that keep a record: made by a batch that did not come to its end; there before the run."""


@dataclass(frozen=True)
class Batch:
    """Targets of one stage that share a job. Each keeps its own spec, files, log and journal."""

    number: int
    targets: Sequence[Target]

    @property
    def rule(self) -> str:
        """Name of the rule that makes it."""
        return f"{self.targets[0].study}_{self.targets[0].stage}_{self.number}"

    @property
    def log(self) -> str:
        """Path of the job's log below results/<study>/; what a target logs is in the target's own."""
        return f"logs/{self.targets[0].stage}/batch-{self.number}.log"

    def inputs(self, results: Path) -> dict[str, list[str]]:
        """Files that any of the targets reads, by name."""
        found: dict[str, dict[str, None]] = {}
        for target in self.targets:
            for name, files in target.inputs(results).items():
                found.setdefault(name, {}).update(dict.fromkeys(files))
        return {name: list(files) for name, files in found.items()}

    def outputs(self, results: Path) -> list[str]:
        """Files of all targets."""
        return [name for target in self.targets for name in target.file_names(results)]

    def spec(self, results: Path) -> str:
        """What `core.run.batch` makes, as canonical JSON: of each target its spec and its files."""
        return f"[{','.join(self._job(target, results) for target in self.targets)}]"

    def keep(self, results: Path, *, anew: bool) -> None:
        """Links what is current, for Snakemake deletes all outputs when the job begins. anew: makes all of it again."""
        for target in self.targets:
            files = target.files(results)
            for kept in {kept for file in files for kept in file.parent.glob(f".{glob.escape(file.name)}.*.{BEFORE}")}:
                kept.unlink()
            if anew:
                for _, kept in kept_links(files, target.spec, MADE):
                    kept.unlink(missing_ok=True)
            elif is_current(target, results):
                for file, kept in kept_links(files, target.spec, BEFORE):
                    relink(file, kept)

    def _job(self, target: Target, results: Path) -> str:
        files = {
            "inputs": target.inputs(results),
            "log": str(results / target.study / target.log),
            "outputs": target.file_names(results),
        }
        return canonical({**files, "spec": json.loads(target.spec)})


def kept_links(outputs: Iterable[Path], spec: str, kind: str) -> list[tuple[Path, Path]]:
    """Each of a target's outputs, and the link that keeps it: hidden, and named by the spec."""
    return [(output, output.with_name(f".{output.name}.{digest(spec)}.{kind}")) for output in outputs]


def relink(file: Path, link: Path) -> None:
    """Makes `link` one to `file`, whatever it was."""
    link.unlink(missing_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.hardlink_to(file)


def batches(targets: Sequence[Target], per_job: int) -> list[Batch]:
    """`targets`, all of one stage, in as few batches as hold `per_job` each; none where every target is a job.

    Neighbours, which often take about as long as each other, go to different batches.
    """
    if per_job == 1 or not targets:
        return []
    count = -(-len(targets) // per_job)
    return [Batch(number, targets[number::count]) for number in range(count)]
