"""Stage `data_parallel.figures`: the study's figures, from the records that `data_parallel.summarize` merged."""

from pathlib import Path

from plumbline.core.plan.target import Spec
from plumbline.core.present.figures import draw_figures
from plumbline.core.run.stage import stage
from plumbline.data_parallel.plots import bars, curves
from plumbline.data_parallel.plots.data import Data
from plumbline.data_parallel.settings import FIGURES

DRAWINGS = {
    "training_time_comparison": bars.training_time_comparison,
    "tokens_per_second_comparison": bars.tokens_per_second_comparison,
    "scaling": curves.scaling,
    "learning": curves.learning,
    "time_spent": bars.time_spent,
    "all_reduce": curves.all_reduce,
}


class FiguresSpec(Spec):
    """What decides the figures: their code and the summary's spec."""


@stage
def figures(spec: FiguresSpec, results: Path, output: Path) -> None:
    """Draws `output`, the first of FIGURES, and the others beside it, each as `<name>.pdf` and `<name>.png` (300 dpi).

    results: the results.json of the stage `summarize`. Raises UserError for any other file.
    """
    draw_figures(DRAWINGS, FIGURES, Data.read(results), output.parent)


if __name__ == "__main__":
    figures.main()
