"""The workloads of captured graphs, a module each."""

from plumbline.disaggregation.workloads.interface import Workload
from plumbline.disaggregation.workloads.llm_prefill import WORKLOAD as PREFILL
from plumbline.disaggregation.workloads.multimodal_vqa import WORKLOAD as VQA
from plumbline.disaggregation.workloads.vision_cnn import WORKLOAD as CNN

WORKLOADS: dict[str, Workload] = {one.name: one for one in (PREFILL, CNN, VQA)}
