"""Stage `sweep.front`: the Pareto front of a sweep with two metrics, as a table and a figure."""

from pathlib import Path

from plumbline.core.present.figures import draw_figures
from plumbline.core.present.tables import write_csv
from plumbline.core.run.stage import stage
from plumbline.sweep.analysis.front import front_frame
from plumbline.sweep.figures import FiguresSpec
from plumbline.sweep.plots.data import Data
from plumbline.sweep.plots.pareto import pareto
from plumbline.sweep.settings import FRONT_FIGURES


class FrontSpec(FiguresSpec):
    """What decides the front: the same as the figures."""


@stage
def front(spec: FrontSpec, results: Path, output: Path) -> None:
    """Writes the table `output`, a row per point, and draws figures/pareto.pdf and .png (300 dpi) beside it.

    results: the results.json of the stage `summarize`, with two metrics. Raises UserError for any other file.
    """
    data = Data.read(results)
    assert data.front is not None
    write_csv(front_frame(data.front), output)
    draw_figures({"pareto": pareto}, FRONT_FIGURES, data, output.parent / "figures")


if __name__ == "__main__":
    front.main()
