"""The processor slowed down: heat, power, or a shared clock budget."""

from statistics import median

from plumbline.lr_sweep.diagnosis.causes.interface import Finding, Probe, milliseconds
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence
from plumbline.lr_sweep.diagnosis.machine import Gpu, Machine

SLOWER = 1.25
"""The end against the start."""
LEAST_INTERVALS = 12
HELD_SHARE = 0.15
"""Of its clock, from which on a GPU that is held down counts as throttled."""


def throttling(trial: TrialEvidence, machine: Machine, probe: Probe) -> Finding | None:
    """On a GPU the reasons that NVML gives now; and on any device the speed of a step against that at the start."""
    held = max(machine.gpus, key=_share_lost, default=None)
    if trial.device != "cpu" and trial.state == "running" and held is not None and _share_lost(held) > HELD_SHARE:
        lost = _share_lost(held) * trial.compute_seconds
        return Finding(
            seconds_lost=lost,
            in_compute=lost,
            evidence=f"{held.name}: {', '.join(held.throttles)}; clock {held.sm_clock_mhz} of"
            f" {held.sm_clock_limit_mhz} MHz",
            advice="cool the machine or raise the power limit (nvidia-smi -q -d PERFORMANCE)",
        )
    # its first interval warms up; one that was cut short by a stop is another cause's
    steady = [gap for gap in trial.intervals[1:] if gap.steps > 0 and gap.idle < 0.5 * gap.monotonic]
    if len(steady) < LEAST_INTERVALS or trial.chose("compile"):
        return None
    quarter = len(steady) // 4
    start, end = (median(gap.step_seconds for gap in part) for part in (steady[:quarter], steady[-quarter:]))
    if start <= 0 or end < SLOWER * start:
        return None
    lost = sum(max(0.0, gap.step_seconds - start) * gap.steps for gap in steady)
    clock = "" if machine.cpu_mhz is None else f"; the clock is at {machine.cpu_mhz:,.0f} MHz now"
    return Finding(
        seconds_lost=lost,
        in_compute=lost,
        evidence=f"a step takes {milliseconds(end)} of computing, at the start it took {milliseconds(start)}{clock}",
        advice="cool the machine; look for work that shares its cores' hardware threads or memory",
    )


def _share_lost(gpu: Gpu) -> float:
    """Of the GPU's clock, by what NVML gives a reason for; 0 where its driver does not tell."""
    if not gpu.throttles or gpu.sm_clock_mhz is None or not gpu.sm_clock_limit_mhz:
        return 0.0
    return 1 - gpu.sm_clock_mhz / gpu.sm_clock_limit_mhz
