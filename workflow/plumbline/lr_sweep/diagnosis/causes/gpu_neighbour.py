"""Another process computes on the GPU."""

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Machine


def gpu_neighbour(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """Other processes that NVML reports on the GPU while a trial runs on it."""
    shared = next((gpu for gpu in machine.gpus if gpu.processes), None)
    if trial.device == "cpu" or trial.state != "running" or shared is None:
        return None
    lost = trial.compute_seconds * len(shared.processes) / (len(shared.processes) + 1)
    return Finding(
        seconds_lost=lost,
        in_compute=lost,
        evidence=f"{shared.name}: processes {', '.join(map(str, shared.processes))} also compute on it;"
        " the lost time assumes that they share it evenly",
        advice="end them, or use another GPU (CUDA_VISIBLE_DEVICES)",
    )
