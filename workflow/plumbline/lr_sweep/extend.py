"""Stage `lr_sweep.extend`: which rates the sweep adds, decided from the records of all trials so far."""

from dataclasses import asdict
from pathlib import Path

from plumbline.core.files import write_json
from plumbline.core.plan.target import MergeSpec
from plumbline.core.run.stage import stage
from plumbline.lr_sweep.analysis.extension import extension
from plumbline.lr_sweep.record import read_trials


class ExtendSpec(MergeSpec):
    """What decides the rates to add: the grid, the rates that may be added to it, and the trials' specs."""

    learning_rates: list[float]
    """The grid in the settings."""
    below: list[float]
    """Candidates below the grid, nearest first."""
    above: list[float]
    """Candidates above the grid, nearest first."""
    round: int
    """Number of earlier rounds."""


@stage
def extend(spec: ExtendSpec, trials: list[Path], output: Path) -> None:
    """Writes {"add": rates, "why": sentence} as JSON to `output`, from the records `trials`.

    `add` is empty when the best rate is inside the grid and a higher rate diverged, or when no candidate is left.
    Raises UserError when a record cannot be read.
    """
    write_json(output, asdict(extension(read_trials(trials, spec.records), spec.below, spec.above)))


if __name__ == "__main__":
    extend.main()
