"""Following the decisions of searches and of halving while a workflow runs: the plan grows as they are taken."""

from collections.abc import Callable, Mapping, MutableMapping
from itertools import count
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError
from plumbline.core.plan.target import Target, by_name, study_files
from plumbline.sweep.plan import decided, sweep_plan
from plumbline.sweep.settings import SweepSettings

Files = Callable[[Any], list[str]]
"""An input function: wildcards -> files."""


class Decisions:
    """The workflow's plan of the sweeps, which follows their decisions. `plan` and `targets` change in place."""

    def __init__(
        self,
        sweeps: Mapping[str, SweepSettings],
        plan: list[Target],
        targets: MutableMapping[tuple[str, str], Target],
        results: Path,
        wait: Callable[[str, int], str],
    ) -> None:
        """wait: gives the file of a sweep's decision by its number, or raises what has Snakemake take it first."""
        self.sweeps, self.plan, self.targets, self.results, self.wait = sweeps, plan, targets, results, wait
        all_of = [target for target in plan if (target.study, target.stage) == ("sweep", "extend")]
        files = [target.file(results) for target in all_of if decided(target, results) is not None]
        self.written = {str(file): file.stat().st_mtime_ns for file in files}
        """Decisions that the plan follows, and when each was written."""

    def follow(self, name: str, before: str | None = None) -> None:
        """Plans the sweep `name` as its decisions say, without those from number `before` on; waits for each."""
        for number in count():
            if str(number) == before or ("sweep.extend", f"{name}/{number}") not in self.targets:
                return
            file = self.wait(name, number)
            if self.written.get(file) != (time := Path(file).stat().st_mtime_ns):
                self._plan_again(name, number)
                self.written[file] = time

    def before(self, inputs: Mapping[str, Files]) -> dict[str, Files]:
        """`inputs` of the sweep that the wildcards name, once its decisions are taken; of a decision, earlier ones."""
        return {name: self._following(files) for name, files in inputs.items()}

    def outputs(self) -> list[Files]:
        """Input functions that give the files of each sweep which takes decisions, once they are taken."""
        return [self._outputs_of(name) for name in self.sweeps if ("sweep.extend", f"{name}/0") in self.targets]

    def earlier(self, wildcards: Any) -> list[str]:
        """The record of the trial with a smaller budget, in whose folder this one goes on."""
        trial = self.targets["sweep.run", "/".join(wildcards)]
        return trial.inputs(self.results).get("before", [])

    def _following(self, files: Files) -> Files:
        def found(wildcards: Any) -> list[str]:
            self.follow(wildcards.sweep, wildcards.get("round"))
            return files(wildcards)

        return found

    def _outputs_of(self, name: str) -> Files:
        def files(wildcards: Any) -> list[str]:
            self.follow(name)
            return study_files(filter(_is_of(name), self.plan), "sweep", self.results)

        return files

    def _plan_again(self, name: str, number: int) -> None:
        """Plans the sweep, now that its decision `number` is there."""
        found = sweep_plan(name, self.sweeps[name], self.results)
        target = by_name(found)["sweep.extend", f"{name}/{number}"]
        if decided(target, self.results) is None:
            raise UserError(
                f"{target.file(self.results)}: was decided with other settings, code or trials; remove rerun-triggers"
                " from your profile or command line and run snakemake again, or delete it"
            )
        for old in filter(_is_of(name), self.plan):
            if old.stage == "extend":
                del self.targets["sweep.extend", old.name]
        self.plan[:] = [*(target for target in self.plan if not _is_of(name)(target)), *found]
        self.targets.update(by_name(found))


def _is_of(name: str) -> Callable[[Target], bool]:
    """Whether a target belongs to the sweep `name`."""
    return lambda target: target.study == "sweep" and target.name.split("/")[0] == name
