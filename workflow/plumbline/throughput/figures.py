"""Stage `throughput.figures`: the study's figures, from the records that `throughput.summarize` merged."""

from pathlib import Path

from plumbline.core.files import read_json
from plumbline.core.plan.target import Spec
from plumbline.core.present.plotting import save, style
from plumbline.core.run.progress import track
from plumbline.core.run.stage import stage
from plumbline.core.settings import validated
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.plots import resources, speed, tradeoffs
from plumbline.throughput.plots.panels import Tables
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

    `results` is the merged JSON of the stage `summarize`. Raises UserError when it is missing or no JSON.
    """
    merged = read_json(results)
    manifests = [validated(Manifest, manifest, str(results)) for manifest in merged["manifests"]]
    tables = Tables(records=merged["trials"], manifests=manifests)
    with style():
        for name in track(FIGURES, len(FIGURES), "figures"):
            save(DRAWINGS[name](tables), output.parent / f"{name}.pdf", output.parent / f"{name}.png")


if __name__ == "__main__":
    figures.main()
