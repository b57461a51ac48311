"""The processor slowed down: heat, power, or a shared clock budget."""

from statistics import median

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, StepTimer, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Gpu, Machine

SLOWER = 1.25
"""A step at the end must take this many times as long as one at the start."""
MIN_INTERVALS = 12
THROTTLED_SHARE = 0.15
"""A GPU that loses this share of its clock counts as throttled."""


def throttling(trial: TrialEvidence, machine: Machine, timer: StepTimer) -> Finding | None:
    """On a GPU the throttle reasons that NVML reports now; on any device, how much slower steps became."""
    worst = max(machine.gpus, key=_share_lost, default=None)
    if trial.device != "cpu" and trial.state == "running" and worst and _share_lost(worst) > THROTTLED_SHARE:
        lost = _share_lost(worst) * trial.compute_seconds
        return Finding(
            seconds_lost=lost,
            in_compute=lost,
            evidence=f"{worst.name}: {', '.join(worst.throttles)}; clock at {worst.sm_clock_mhz} of"
            f" {worst.sm_clock_limit_mhz} MHz",
            advice="cool the machine or raise the power limit (nvidia-smi -q -d PERFORMANCE)",
        )
    # the first interval is warm-up, and intervals with a stop belong to another cause
    steady = [gap for gap in trial.intervals[1:] if gap.steps > 0 and gap.idle < 0.5 * gap.monotonic]
    if len(steady) < MIN_INTERVALS or trial.uses("compile"):
        return None
    quarter = len(steady) // 4
    start, end = (median(gap.step_seconds for gap in part) for part in (steady[:quarter], steady[-quarter:]))
    if start <= 0 or end < SLOWER * start:
        return None
    lost = sum(max(0.0, gap.step_seconds - start) * gap.steps for gap in steady)
    clock = "" if machine.cpu_mhz is None else f"; the CPU clock is now at {machine.cpu_mhz:,.0f} MHz"
    return Finding(
        seconds_lost=lost,
        in_compute=lost,
        evidence=f"a step took {milliseconds(start)} of compute at the start and {milliseconds(end)} at the end{clock}",
        advice="cool the machine; look for other work that shares its cores' hardware threads or memory bandwidth",
    )


def _share_lost(gpu: Gpu) -> float:
    """Share of its clock that the GPU loses for a reason NVML reports; 0 where the driver reports none."""
    if not gpu.throttles or gpu.sm_clock_mhz is None or not gpu.sm_clock_limit_mhz:
        return 0.0
    return 1 - gpu.sm_clock_mhz / gpu.sm_clock_limit_mhz
