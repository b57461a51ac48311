"""Stage `sweep.figures`: the figures of one sweep, from the records that `sweep.summarize` merged."""

from pathlib import Path

from plumbline.core.plan.target import Spec
from plumbline.core.present.figures import draw_figures
from plumbline.core.run.stage import stage
from plumbline.sweep.plots import interaction, progress, values
from plumbline.sweep.plots.data import Data
from plumbline.sweep.settings import FIGURES, MetricSettings
from plumbline.sweep.trial.command import Value

DRAWINGS = {
    "parameters": values.parameters,
    "interaction": interaction.interaction,
    "ranking": values.ranking,
    "progress": progress.progress,
    "curves": values.curves,
    "cost": values.cost,
}


class FiguresSpec(Spec):
    """What decides the figures: their code and the summary's spec."""

    sweep: str
    metrics: list[MetricSettings]
    baseline: dict[str, Value] | None
    sampler: str | None
    budget: str | None


@stage
def figures(spec: FiguresSpec, results: Path, output: Path) -> None:
    """Draws `output`, the first of FIGURES, and the others beside it, each as `<name>.pdf` and `<name>.png` (300 dpi).

    results: the results.json of the stage `summarize`. Raises UserError for any other file.
    """
    draw_figures(DRAWINGS, FIGURES, Data.read(results), output.parent)


if __name__ == "__main__":
    figures.main()
