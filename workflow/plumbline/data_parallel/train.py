"""Stage `data_parallel.train`: one trial, a training in one world with one method and one kind of scaling."""

from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.core.files import read_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.checkpoint import checkpoint_path, remove_checkpoints
from plumbline.core.run.record import recording
from plumbline.core.run.stage import stage
from plumbline.core.settings import validated
from plumbline.data_parallel.ranks.launch import run_ranks
from plumbline.data_parallel.ranks.room import check_room
from plumbline.data_parallel.record import RankEpoch, TrialRecord
from plumbline.data_parallel.settings import ModelSettings, OperationSettings, Scaling, TrainingSettings


class TrainSpec(Spec):
    """Everything that decides one trial."""

    model: ModelSettings
    training: TrainingSettings
    method: str
    scaling: Scaling
    world: int
    seed: int
    device: str
    """auto | cpu | cuda."""


@stage
def train(
    spec: TrainSpec,
    tokens: Path,
    tokenizer: Path,
    output: Path,
    checkpoint_seconds: float = 30.0,
    timeout_seconds: float = 60.0,
    oversubscribe: int = 0,
) -> None:
    """Trains through torchrun, and writes the record to `output`, with the ranks' files for each epoch beside it.

    tokens, tokenizer: meta.json and tokenizer.json of those stages. Resumes from its checkpoint where there is one.
    """
    check_room(spec.world, spec.device, oversubscribe=bool(oversubscribe))
    identity, folder = spec.model_dump_json(), output.parent
    operation = OperationSettings(checkpoint_seconds=checkpoint_seconds, timeout_seconds=timeout_seconds)
    batch = spec.training.batch * (spec.world if spec.scaling == "weak" else 1)
    checkpoint = checkpoint_path(output, identity)
    request = {
        **{name: getattr(spec, name).model_dump(mode="json") for name in ("model", "training")},
        "operation": operation.model_dump(mode="json"),
        "method": spec.method,
        "batch": batch,
        "seed": spec.seed,
        "identity": identity,
        "checkpoint": str(checkpoint.resolve()),
        "results": str(folder.resolve()),
        "tokens": str(tokens.resolve()),
        "tokenizer": str(tokenizer.resolve()),
        "device": spec.device,
    }
    if not checkpoint.exists():
        _clear(folder)
    with recording(output, TrialRecord, trial=folder.name, spec=spec) as findings:
        findings |= {"method": spec.method, "scaling": spec.scaling, "world": spec.world, "batch": batch}
        findings |= run_ranks(
            "plumbline.data_parallel.ranks.train",
            request,
            world=spec.world,
            folder=folder / ".ranks",
            timeout=operation.timeout_seconds,
            steps=spec.training.epochs * -(-read_json(tokens)["splits"]["train"]["sequences"] // batch),
        )
        findings["epochs"] = [
            _epoch(folder / f"rank{rank}_results_epoch{epoch}.json")
            for epoch in range(spec.training.epochs)
            for rank in range(spec.world)
        ]
    remove_checkpoints(output)


def _epoch(path: Path) -> RankEpoch:
    if not path.exists():
        raise UserError(f"{path}: does not exist, though its epoch is done; delete {path.parent} to train again")
    return validated(RankEpoch, read_json(path), str(path))


def _clear(folder: Path) -> None:
    """Removes the ranks' files of an earlier trial."""
    for path in folder.glob("rank*_*.json"):
        path.unlink()


if __name__ == "__main__":
    train.main()
