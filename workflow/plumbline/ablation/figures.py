"""Stage `ablation.figures`: the study's figures, from the tables that `ablation.summarize` wrote."""

from pathlib import Path

import pandas as pd

from plumbline.ablation.plots import comparisons, cost, training
from plumbline.ablation.plots.panels import Tables
from plumbline.ablation.settings import FIGURES
from plumbline.core.files import read_json
from plumbline.core.plan.target import Spec
from plumbline.core.present.plotting import save, style
from plumbline.core.run.progress import track
from plumbline.core.run.stage import stage

DRAWINGS = {
    "accuracy": comparisons.accuracy,
    "drop": comparisons.drop,
    "invariance": comparisons.invariance,
    "confusion": training.confusion,
    "curves": training.curves,
    "pareto": cost.pareto,
    "gap": comparisons.gap,
}


class FiguresSpec(Spec):
    """What decides the figures: their code and the summary's spec."""


@stage
def figures(spec: FiguresSpec, results: Path, runs: Path, summary: Path, contrasts: Path, output: Path) -> None:
    """Draws `output`, the first of FIGURES, and the others beside it, each as `<name>.pdf` and `<name>.png` (300 dpi).

    `summary`, `runs`, `contrasts` are the CSV files and `results` the merged JSON of the stage `summarize`.
    Raises UserError when `results` is missing or no JSON.
    """
    tables = Tables(
        summary=pd.read_csv(summary),
        runs=pd.read_csv(runs),
        contrasts=pd.read_csv(contrasts),
        records=read_json(results)["trials"],
    )
    with style():
        for name in track(FIGURES, len(FIGURES), "figures"):
            save(DRAWINGS[name](tables), output.parent / f"{name}.pdf", output.parent / f"{name}.png")


if __name__ == "__main__":
    figures.main()
