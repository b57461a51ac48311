"""Stage `lr_sweep.figures`: the study's figures, from the records that `lr_sweep.summarize` merged."""

from pathlib import Path

from plumbline.core.files import read_json
from plumbline.core.plan.target import Spec
from plumbline.core.present.plotting import save, style
from plumbline.core.run.progress import track
from plumbline.core.run.stage import stage
from plumbline.lr_sweep.plots import losses, time
from plumbline.lr_sweep.plots.panels import Tables
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

    `results` is the merged JSON of the stage `summarize`. Raises UserError when it is missing or no JSON.
    """
    tables = Tables(records=read_json(results)["trials"])
    with style():
        for name in track(FIGURES, len(FIGURES), "figures"):
            save(DRAWINGS[name](tables), output.parent / f"{name}.pdf", output.parent / f"{name}.png")


if __name__ == "__main__":
    figures.main()
