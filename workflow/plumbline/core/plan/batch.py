"""Batches: targets of one stage that one job makes, so that what they import is imported once."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.core.files import atomic
from plumbline.core.plan.target import Target, canonical
from plumbline.core.run.record import read_record


@dataclass(frozen=True)
class Batch:
    """Targets of one stage that share a job. Each keeps its own spec, files, log and journal."""

    number: int
    targets: Sequence[Target]

    @property
    def rule(self) -> str:
        """Name of the rule that makes it."""
        return f"{self.rule_for_one}_{self.number}"

    @property
    def rule_for_one(self) -> str:
        """Name of the rule that makes one target alone."""
        return f"{self.targets[0].study}_{self.targets[0].stage}"

    @property
    def log(self) -> str:
        """Path of the job's log below results/<study>/; what a target logs is in the target's own."""
        return f"logs/{self.targets[0].stage}/batch-{self.number}.log"

    @property
    def benchmark(self) -> str:
        """Path below results/<study>/ of what the job took."""
        return f"benchmarks/{self.targets[0].stage}/batch-{self.number}.tsv"

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

    def _job(self, target: Target, results: Path) -> str:
        files = {
            "inputs": target.inputs(results),
            "log": str(results / target.study / target.log),
            "outputs": target.file_names(results),
        }
        return canonical({**files, "spec": json.loads(target.spec)})


@contextmanager
def keeping(targets: Iterable[Target], results: Path, anew: Callable[[Target], bool]) -> Iterator[None]:
    """Keeps what is current for the length of a run: Snakemake deletes all outputs of a job that begins or fails.

    What is missing in the end, and was current or was made, is brought back, and no link stays. A run that is killed
    leaves its links to the next one. anew: whether a target is to be made again, current or not.
    """
    for target in targets:
        files = target.files(results)
        if anew(target):
            forget(files)
        elif is_there(files, target.spec):
            keep(files)
    try:
        yield
    finally:
        for target in targets:
            files = target.files(results)
            if not all(file.exists() for file in files):
                is_there(files, target.spec)
            forget(files)


def is_there(records: Sequence[Path], spec: str) -> bool:
    """Whether all of a target's records were made from `spec`; those that links keep are brought back."""
    if all(_made_from(spec, record) for record in records):
        return True
    kept = all(_made_from(spec, _link(record)) for record in records)
    for record in records if kept else ():
        _relink(_link(record), record)
    return kept


def is_older(records: Iterable[Path], inputs: Mapping[str, Iterable[str]]) -> bool:
    """Whether a target has a record older than a file that it reads; one that is not there is no newer."""
    oldest = min(record.stat().st_mtime for record in records)
    return any(file.stat().st_mtime > oldest for files in inputs.values() for file in map(Path, files) if file.exists())


def keep(records: Iterable[Path]) -> None:
    """Gives each record a second name, a hidden link beside it, which outlives its deletion."""
    for record in records:
        _relink(record, _link(record))


def forget(records: Iterable[Path]) -> None:
    """Removes the links that keep records."""
    for record in records:
        _link(record).unlink(missing_ok=True)


def _link(record: Path) -> Path:
    return record.with_name(f".{record.name}.kept")


def _made_from(spec: str, record: Path) -> bool:
    try:
        return canonical(read_record(record).get("spec")) == spec
    except UserError:
        return False


def _relink(file: Path, link: Path) -> None:
    """Makes `link` one to `file`, whatever it was; a copy where the file system has no hard links."""
    link.unlink(missing_ok=True)
    try:
        link.hardlink_to(file)
    except OSError:
        with atomic(link) as partial:
            shutil.copy2(file, partial)


def batches(targets: Sequence[Target], per_job: int) -> list[Batch]:
    """`targets`, all of one stage, in as few batches as hold `per_job` each; none where every target is a job.

    Neighbours, which often take about as long as each other, go to different batches.
    """
    if per_job == 1 or not targets:
        return []
    count = -(-len(targets) // per_job)
    return [Batch(number, targets[number::count]) for number in range(count)]
