"""Stage `lr_sweep.extend`: which rates the sweep adds, decided from the records of all trials so far."""

from dataclasses import asdict
from pathlib import Path

from plumbline.core.files import write_json
from plumbline.core.plan.target import MergeSpec
from plumbline.core.run.stage import stage
from plumbline.lr_sweep.analysis.extension import Candidates, extension
from plumbline.lr_sweep.record import read_trials


class ExtendSpec(MergeSpec):
    """What decides the rates to add: the grid, the rates that may be added to it, and the trials' specs."""

    learning_rates: list[float]
    """The grid in the settings."""
    below: list[float]
    """Candidates below the grid, nearest first."""
    above: list[float]
    """Candidates above the grid, nearest first."""
    between: list[float]
    """Candidates inside the gaps of the grid."""
    round: int
    """Number of earlier rounds."""


@stage
def extend(spec: ExtendSpec, trials: list[Path], output: Path) -> None:
    """Writes {"add": rates, "why": sentence, "best": rate} as JSON to `output`, from the records `trials`.

    `add` is empty when the best rate is inside the grid with close neighbours and a higher rate diverged, or when no
    candidate is left. `best` is the best rate so far, null when every rate diverged.
    Raises UserError when a record cannot be read.
    """
    candidates = Candidates(below=spec.below, above=spec.above, between=spec.between)
    write_json(output, asdict(extension(read_trials(trials, spec.records), candidates)))


if __name__ == "__main__":
    extend.main()
