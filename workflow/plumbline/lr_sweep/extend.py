"""Stage `lr_sweep.extend`: which rates the sweep adds, from the records of all trials so far."""

from pathlib import Path

from plumbline.core.files import write_json
from plumbline.core.plan.target import MergeSpec
from plumbline.core.run.record import check_specs
from plumbline.core.run.stage import stage
from plumbline.lr_sweep.analysis.extension import decide
from plumbline.lr_sweep.analysis.records import read_records


class ExtendSpec(MergeSpec):
    """What decides the rates to add: the grid, the rates that may be added to it, and the trials' specs."""

    learning_rates: list[float]
    """The grid that the settings ask for."""
    below: list[float]
    """Rates that may be added below the grid, nearest first."""
    above: list[float]
    round: int
    """How many such decisions came before."""


@stage
def extend(spec: ExtendSpec, trials: list[Path], output: Path) -> None:
    """Writes {"add": rates, "why": sentence} as JSON to `output`, from the records `trials`.

    `add` is empty when the best rate is inside the grid and the edge was seen, or when no
    candidate is left. Raises UserError when a record cannot be read.
    """
    records = read_records(trials)
    check_specs(records, spec.records)
    decision = decide(records, spec.below, spec.above)
    write_json(output, {"add": decision.add, "why": decision.why})


if __name__ == "__main__":
    extend.main()
