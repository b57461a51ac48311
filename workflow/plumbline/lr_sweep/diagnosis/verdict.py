"""The result of a diagnosis, as diagnosis.json holds it."""

from typing import Any, Literal

from plumbline.core.settings import Settings

Status = Literal["healthy", "slower_than_expected", "inconclusive"]
EXIT_STATUS: dict[Status, int] = {"healthy": 0, "slower_than_expected": 1, "inconclusive": 2}


class RunningTrial(Settings):
    """How far a running trial is."""

    name: str
    steps_done: int
    steps: int
    percent: float
    tokens_per_second_now: float | None
    speed_against_start: float | None
    """Speed now over speed at the start."""
    silent_seconds: float


class SweepProgress(Settings):
    """How far the sweep is."""

    trials: int
    done: int
    running: int
    failed: int
    left: int
    done_percent: float
    steps_done: int
    steps: int
    steps_percent: float
    tokens_per_second_now: float | None
    tokens_per_second_overall: float | None
    eta_seconds: float | None
    running_trials: list[RunningTrial]


class Expectation(Settings):
    """The speed that a replay of a trial's step reaches on this machine, against the speed of the trial."""

    trial: str
    threads: int
    dtype: str
    device: str
    expected_step_seconds: float | None
    expected_tokens_per_second: float | None
    tokens: int
    compute_seconds: float
    compute_tokens_per_second: float | None
    loop_tokens_per_second: float | None
    flops_per_token: int
    flops_formula: str
    matmul_ceiling_flops_per_second: float | None
    mfu: float | None
    unexplained_seconds: float | None
    """Compute time beyond the replayed step that no cause explains."""


class RankedCause(Settings):
    """One cause over all trials, with the evidence of the worst trial."""

    cause: str
    seconds_lost: float
    share: float
    """Share of all trials' time."""
    trials: int
    worst_trial: str
    worst_share: float
    evidence: str
    counterfactual: str | None
    advice: str


class Ledgers(Settings):
    """Seconds by span, of all trials and of each."""

    total: dict[str, float]
    trials: dict[str, dict[str, float]]


class MachineLoad(Settings):
    """This machine during the diagnosis."""

    cores: int
    cpu_pressure_percent: float | None


class Diagnosis(Settings):
    """Whether a sweep is as fast as it should be, and if not, why."""

    status: Status
    why: str
    progress: SweepProgress
    expected: list[Expectation]
    ledger_seconds: Ledgers
    causes: list[RankedCause]
    unexplained_seconds: float
    machine: MachineLoad

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as JSON values."""
        return self.model_dump(mode="json")
