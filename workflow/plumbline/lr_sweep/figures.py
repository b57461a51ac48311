"""Stage `lr_sweep.figures`: the study's figures, from the records that `lr_sweep.summarize` merged."""

from pathlib import Path

from plumbline.core.plan.target import Spec
from plumbline.core.present.figures import draw_figures
from plumbline.core.run.records import read_results
from plumbline.core.run.stage import stage
from plumbline.lr_sweep.plots import losses, time
from plumbline.lr_sweep.plots.panels import SweepData
from plumbline.lr_sweep.record import TrialRecord
from plumbline.lr_sweep.settings import FIGURES

DRAWINGS = {
    "loss_by_rate": losses.loss_by_rate,
    "curves": losses.curves,
    "edge": losses.edge,
    "throughput": time.throughput,
    "time_spent": time.time_spent,
}


class FiguresSpec(Spec):
    """What decides the figures: their code and the summary's spec."""


@stage
def figures(spec: FiguresSpec, results: Path, output: Path) -> None:
    """Draws `output`, the first of FIGURES, and the others beside it, each as `<name>.pdf` and `<name>.png` (300 dpi).

    results: the results.json of the stage `summarize`. Raises UserError for any other file.
    """
    records, _ = read_results(results, TrialRecord)
    draw_figures(DRAWINGS, FIGURES, SweepData(records=records), output.parent)


if __name__ == "__main__":
    figures.main()
