"""The workloads of captured graphs, a module each."""

from plumbline.disaggregation.runtime.graphs.graph import Graph
from plumbline.disaggregation.settings import MICRO, Shapes
from plumbline.disaggregation.workloads import microbenchmark
from plumbline.disaggregation.workloads.interface import Program, Workload
from plumbline.disaggregation.workloads.llm_prefill import WORKLOAD as PREFILL
from plumbline.disaggregation.workloads.multimodal_vqa import WORKLOAD as VQA
from plumbline.disaggregation.workloads.vision_cnn import WORKLOAD as CNN

WORKLOADS: dict[str, Workload] = {one.name: one for one in (PREFILL, CNN, VQA)}


def programs(name: str, shapes: Shapes, seed: int) -> dict[str, Program]:
    """The programs of a workload by their names: the micro workload's, or the one of another, under its own."""
    if name == MICRO:
        return microbenchmark.programs(shapes.micro, seed)
    return {name: WORKLOADS[name].program(shapes, seed)}


def graphs(name: str, shapes: Shapes, seed: int) -> dict[str, dict[int, Graph]]:
    """Captures the graphs of a workload by number of rows, under its name; of the micro workload, its name/PROGRAM."""
    if name == MICRO:
        found = microbenchmark.graphs(microbenchmark.programs(shapes.micro, seed))
        return {f"{name}/{program}": by_rows for program, by_rows in found.items()}
    return {name: WORKLOADS[name].program(shapes, seed).capture(name)}
