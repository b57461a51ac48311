"""Stage `throughput.figures`: the study's figures, from the records that `throughput.summarize` merged."""

from pathlib import Path

from plumbline.core.plan.target import Spec
from plumbline.core.present.figures import draw_figures
from plumbline.core.run.records import read_results
from plumbline.core.run.stage import stage
from plumbline.core.settings import validated
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.plots import resources, speed, tradeoffs
from plumbline.throughput.plots.results import Results
from plumbline.throughput.record import ComparisonRecord, TrialRecord
from plumbline.throughput.settings import FIGURES

DRAWINGS = {
    "throughput_by_batch": speed.throughput_by_batch,
    "throughput_by_length": speed.throughput_by_length,
    "memory": resources.memory,
    "efficiency": speed.efficiency,
    "pareto": tradeoffs.pareto,
    "ceiling": resources.ceiling,
    "phases": resources.phases,
    "engines": speed.engines,
    "compression": tradeoffs.compression,
}


class FiguresSpec(Spec):
    """What decides the figures: their code and the summary's spec."""


@stage
def figures(spec: FiguresSpec, results: Path, output: Path) -> None:
    """Draws `output`, the first of FIGURES, and the others beside it, each as `<name>.pdf` and `<name>.png` (300 dpi).

    `results` is the JSON that the stage `summarize` merged. Raises UserError when it is missing or not such a file.
    """
    records, merged = read_results(results, TrialRecord)
    manifests = [validated(Manifest, manifest, str(results)) for manifest in merged["manifests"]]
    comparisons = [validated(ComparisonRecord, values, str(results)) for values in merged["comparisons"]]
    drawn = Results(records=records, manifests=manifests, comparisons=comparisons)
    draw_figures(DRAWINGS, FIGURES, drawn, output.parent)


if __name__ == "__main__":
    figures.main()
