"""Stage `data_parallel.equality`: the proof that every method and world computes what one process does."""

from pathlib import Path

from plumbline.core.plan.target import Spec
from plumbline.core.run.record import recording
from plumbline.core.run.stage import stage
from plumbline.data_parallel.ranks.launch import run_ranks
from plumbline.data_parallel.ranks.room import check_room
from plumbline.data_parallel.record import EqualityRecord
from plumbline.data_parallel.settings import ModelSettings, TrainingSettings


class EqualitySpec(Spec):
    """What decides the proof."""

    model: ModelSettings
    training: TrainingSettings
    methods: list[str]
    worlds: list[int]
    steps: int
    seed: int


@stage
def equality(
    spec: EqualitySpec,
    tokens: Path,
    output: Path,
    timeout_seconds: float = 60.0,
    device: str = "auto",
    oversubscribe: int = 0,
) -> None:
    """Trains with each method in each world from the same weights on the same batches, and records the differences.

    tokens: meta.json of that stage. A method that the backend cannot run is `unavailable`.
    """
    world = max(spec.worlds)
    check_room(world, device, oversubscribe=bool(oversubscribe))
    request = spec.model_dump(mode="json") | {"tokens": str(tokens.resolve()), "device": device}
    with recording(output, EqualityRecord, trial=output.stem, spec=spec) as findings:
        module, folder = "plumbline.data_parallel.ranks.equality", output.with_name(f".{output.stem}.ranks")
        findings |= run_ranks(module, request, world=world, folder=folder, timeout=timeout_seconds)
        findings["steps"] = spec.steps


if __name__ == "__main__":
    equality.main()
