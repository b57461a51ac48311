"""The workloads of captured graphs, a module each."""

from plumbline.disaggregation.settings import MICRO, Shapes
from plumbline.disaggregation.workloads import microbenchmark
from plumbline.disaggregation.workloads.interface import Program, Workload
from plumbline.disaggregation.workloads.llm_prefill import WORKLOAD as PREFILL
from plumbline.disaggregation.workloads.multimodal_vqa import WORKLOAD as VQA
from plumbline.disaggregation.workloads.vision_cnn import WORKLOAD as CNN

WORKLOADS: dict[str, Workload] = {one.name: one for one in (PREFILL, CNN, VQA)}


def programs(name: str, shapes: Shapes, seed: int) -> dict[str, Program]:
    """The programs of a workload by the names that their graphs are captured under; the micro workload has many."""
    if name == MICRO:
        return microbenchmark.programs(shapes.micro, seed)
    return {name: WORKLOADS[name].program(shapes, seed)}
