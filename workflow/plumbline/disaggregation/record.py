"""The records of the study: what a block of interleaved turns found. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from plumbline.core.run.record import Outcome, Record
from plumbline.core.run.records import read_records
from plumbline.core.settings import Settings
from plumbline.disaggregation.settings import Link


class Arm(Settings):
    """One variant, in the turns of one block."""

    name: str
    seconds: list[float]
    """Per token, prompt included, one a round."""
    bytes_per_token: float | None = None
    """Both ways, headers and MACs included; None where nothing is sent, or nothing can count it."""
    counted_by: Literal["protocol", "interface"] | None = None
    """The protocol's counters, or those of the network interface, which count headers of TCP, IP and Ethernet too."""
    round_trips_per_token: float | None = None
    """None where nothing is sent."""


class Context(Settings):
    """The turns with one length of prompt: `local` first, its second copy (A/A) next."""

    context: int
    arms: list[Arm]
    precise: bool
    """Whether the time sufficed for the precision asked for, within this block."""


class MeasureRecord(Record):
    """What one block found on one link."""

    study: Literal["disaggregation"] = "disaggregation"
    stage: Literal["measure"] = "measure"
    link: Link
    block: int
    contexts: list[Context] = []
    parameters: int | None = None
    unavailable: dict[str, str] = {}
    """Baselines that were asked for and could not run here, and why."""
    worker_pid: int | None = None
    client_pid: int | None = None
    rpc_pid: int | None = None
    """Of the process that owns rpc's module, as it says itself when it ends."""
    owner_pids: dict[str, int] = {}
    """Of the baselines behind calls: the process that computed, as it told the client."""
    owner_threads: dict[str, int] = {}
    """How many threads each of them computed with."""
    capture_seconds: float | None = None
    """What capturing the decode step took, once, before the turns."""
    captured_operations: int | None = None
    protocol_bytes: int | None = None
    """All that the client sent and received, by the protocol's counters."""
    kernel_bytes: int | None = None
    """The same by the kernel's (TCP_INFO); None where it has none."""

    @model_validator(mode="after")
    def _measured_blocks_have_turns(self) -> Self:
        if self.outcome is Outcome.OK and not self.contexts:
            raise ValueError("contexts are missing, and the outcome is ok")
        return self


def read_trials(paths: Sequence[Path], expected: dict[str, str] | None = None) -> list[MeasureRecord]:
    """The records at `paths`, by link and block. Raises UserError as `read_records` does."""
    return sorted(read_records(MeasureRecord, paths, expected), key=lambda one: (one.link, one.block))
