"""Stage `data_parallel.notebook`: the notebook that walks through the tables and figures, executed."""

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from plumbline.core.errors import UserError
from plumbline.core.files import atomic
from plumbline.core.plan.target import Spec
from plumbline.core.run.stage import stage
from plumbline.data_parallel.settings import FIGURES

KERNEL = "python3"
CELL_SECONDS = 120
SEARCHED = Path(__file__).parents[2]
"""Where this package lies: the kernel imports it from there too."""
STEPS = (
    (
        "# What does a second device buy in training?\nThe same functions that draw the study's figures and tables,"
        " step by step. Change a cell and run it again; nothing is trained here.",
        "from io import BytesIO\n"
        "from pathlib import Path\n"
        "from IPython.display import Image\n"
        "from plumbline.data_parallel.plots.data import Data\n"
        "from plumbline.core.present.plotting import style\n"
        "from plumbline.data_parallel.figures import DRAWINGS\n"
        "from plumbline.data_parallel.analysis.speedups import speedups_frame\n"
        "from plumbline.data_parallel.summarize import equality_table\n"
        "data = Data.read(Path({results!r}))\n"
        "def draw(name):\n"
        "    picture = BytesIO()\n"
        "    with style():\n"
        "        DRAWINGS[name](data).savefig(picture, dpi=110)\n"
        "    return Image(picture.getvalue())",
    ),
    ("## The trials\nTimes and rates leave the first epoch out.", "data.trials.T"),
    ("## Speed-ups from interleaved turns", "speedups_frame(data.speedups)"),
    ("## Do all of them compute the same?", "equality_table(data.equality)"),
)


class NotebookSpec(Spec):
    """What decides the notebook: its code and the summary's spec."""


@stage
def notebook(spec: NotebookSpec, results: Path, output: Path) -> None:
    """Writes the executed notebook to `output`. results: the results.json of the stage `summarize`.

    Raises UserError when a cell fails.
    """
    made = new_notebook()
    made.metadata["kernelspec"] = {"name": KERNEL, "display_name": "Python 3", "language": "python"}
    cells = []
    for text, code in STEPS:
        cells += [new_markdown_cell(text), new_code_cell(code.replace("{results!r}", repr(str(results.resolve()))))]
    for name in FIGURES:
        cells += [new_markdown_cell(f"## {name.replace('_', ' ').capitalize()}"), new_code_cell(f"draw({name!r})")]
    made.cells = cells
    for number, cell in enumerate(made.cells):
        cell["id"] = f"cell-{number}"  # random ones would differ from run to run
    # in this process's interpreter, whatever kernel the machine has under that name
    client = NotebookClient(
        made, timeout=CELL_SECONDS, kernel_name=KERNEL, resources={"metadata": {"path": str(Path.cwd())}}
    )
    manager: Any = client.create_kernel_manager()
    manager.kernel_spec.argv[0] = sys.executable
    try:
        client.execute(env=os.environ | {"PYTHONPATH": str(SEARCHED)})
    except CellExecutionError as error:
        raise UserError(f"{output}: a cell failed: {error.ename}: {error.evalue}") from error
    for cell in made.cells:
        cell.get("metadata", {}).pop("execution", None)  # times of execution
    with atomic(output) as partial:
        nbformat.write(made, partial)


if __name__ == "__main__":
    notebook.main()
