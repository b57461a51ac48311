"""Stage `disaggregation.capture`: the graphs of all workloads, captured once. No block captures again."""

import json
import time
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, write_text
from plumbline.core.plan.target import Spec
from plumbline.core.run.progress import track
from plumbline.core.run.stage import stage
from plumbline.disaggregation.runtime.graphs.graph import Graph
from plumbline.disaggregation.settings import Shapes, WorkloadName
from plumbline.disaggregation.workloads import graphs as captured

SCHEMA = 2
"""Of graphs.json: changes when a graph's JSON does."""


class CaptureSpec(Spec):
    """What decides the graphs."""

    workloads: list[WorkloadName]
    shapes: Shapes
    seed: int


@stage
def capture(spec: CaptureSpec, output: Path) -> None:
    """Captures each workload at each of its batch sizes."""
    found: dict[str, Any] = {}
    for name in track(spec.workloads, len(spec.workloads), "workloads"):
        began = time.perf_counter()
        graphs = captured(name, spec.shapes, spec.seed)
        seconds = (time.perf_counter() - began) / len(graphs)
        for key, by_rows in graphs.items():
            found[key] = {
                "seconds": seconds,
                "graphs": {str(rows): json.loads(one.json_text) for rows, one in by_rows.items()},
            }
    write_text(output, json.dumps({"schema": SCHEMA, "workloads": found}, separators=(",", ":")) + "\n")


def read_graphs(path: Path, workload: str) -> tuple[dict[int, Graph], float]:
    """The graphs of a workload by number of rows, and how long capturing them took. Raises UserError."""
    values = read_json(path)
    if not isinstance(values, dict) or values.get("schema") != SCHEMA or workload not in values.get("workloads", {}):
        raise UserError(f"{path}: holds no graphs of {workload}; delete it to have it rebuilt")
    found = values["workloads"][workload]
    return {int(rows): Graph.model_validate(one) for rows, one in found["graphs"].items()}, found["seconds"]


if __name__ == "__main__":
    capture.main()
