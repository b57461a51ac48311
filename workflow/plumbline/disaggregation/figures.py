"""Stage `disaggregation.figures`: the study's figures, from the records that `disaggregation.summarize` merged."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from plumbline.core.plan.target import Spec
from plumbline.core.present.figures import draw_figures
from plumbline.core.run.records import read_results
from plumbline.core.run.stage import stage
from plumbline.core.settings import validated
from plumbline.disaggregation.analysis.cost import Prediction
from plumbline.disaggregation.analysis.decode import Cell, cells
from plumbline.disaggregation.analysis.heat_map import Square, squares
from plumbline.disaggregation.analysis.workloads import Speedup, WorkloadCell, speedups, workload_cells
from plumbline.disaggregation.plots.cost import cost_model
from plumbline.disaggregation.plots.decode import features, latency, traffic
from plumbline.disaggregation.plots.workloads import heat_map, speedup, workload_times, workload_traffic
from plumbline.disaggregation.record import MeasureRecord
from plumbline.disaggregation.settings import FIGURES
from plumbline.disaggregation.workload_record import WorkloadRecord


class FiguresSpec(Spec):
    """What decides the figures: their code and the summary's spec."""


@dataclass(frozen=True)
class Found:
    """What the figures show."""

    decoding: list[Cell]
    workloads: list[WorkloadCell]
    gains: list[Speedup]
    predictions: list[Prediction]
    matrix: list[Square]


DRAWINGS: dict[str, Callable[[Found], Figure]] = {
    "latency": lambda found: latency(found.decoding),
    "features": lambda found: features(found.decoding),
    "traffic": lambda found: traffic(found.decoding),
    "heat_map": lambda found: heat_map(found.matrix),
    "workloads": lambda found: workload_times(found.workloads),
    "workload_traffic": lambda found: workload_traffic(found.workloads),
    "speedup": lambda found: speedup(found.gains),
    "cost_model": lambda found: cost_model(found.predictions),
}


@stage
def figures(spec: FiguresSpec, results: Path, output: Path) -> None:
    """Draws `output`, the first of FIGURES, and the others beside it, each as `<name>.pdf` and `<name>.png` (300 dpi).

    results: the results.json of the stage `summarize`. Raises UserError for any other file.
    """
    records, merged = read_results(results, MeasureRecord)
    others = [validated(WorkloadRecord, one, str(results)) for one in merged.get("workloads", [])]
    predictions = [Prediction(**one) for one in merged.get("predictions", [])]
    decoding, called = cells(records), workload_cells(others)
    matrix = squares(records, others, decoding, called)
    found = Found(decoding, called, speedups(others), predictions, matrix)
    draw_figures(DRAWINGS, FIGURES, found, output.parent)


if __name__ == "__main__":
    figures.main()
