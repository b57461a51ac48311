"""Stage `ablation.figures`: draws the study's figures from the tables of `ablation.summarize`."""

from pathlib import Path

import pandas as pd

from plumbline.ablation.analysis.records import TrialRecord
from plumbline.ablation.plots import comparisons, cost, training
from plumbline.ablation.plots.panels import FigureData
from plumbline.ablation.settings import FIGURES
from plumbline.core.plan.target import Spec
from plumbline.core.present.figures import draw_figures
from plumbline.core.run.records import read_results
from plumbline.core.run.stage import stage

DRAWINGS = {
    "accuracy": comparisons.accuracy,
    "drop": comparisons.drop,
    "invariance": comparisons.invariance,
    "confusion": training.confusion,
    "curves": training.curves,
    "learning_curve": training.learning_curve,
    "pareto": cost.pareto,
    "gap": comparisons.gap,
}


class FiguresSpec(Spec):
    """What decides the figures: their code and the summary's spec."""


@stage
def figures(
    spec: FiguresSpec, results: Path, runs: Path, summary: Path, contrasts: Path, learning_curve: Path, output: Path
) -> None:
    """Draws `output`, the first of FIGURES, and the others beside it, each as `<name>.pdf` and `<name>.png` (300 dpi).

    `summary`, `runs`, `contrasts`, `learning_curve` are the CSV files and `results` the merged JSON of stage
    `summarize`. Raises UserError when `results` is missing or is not a summary's.
    """
    records, _ = read_results(results, TrialRecord)
    data = FigureData(
        summary=pd.read_csv(summary),
        runs=pd.read_csv(runs),
        contrasts=pd.read_csv(contrasts),
        learning_curve=pd.read_csv(learning_curve),
        records=records,
    )
    draw_figures(DRAWINGS, FIGURES, data, output.parent)


if __name__ == "__main__":
    figures.main()
