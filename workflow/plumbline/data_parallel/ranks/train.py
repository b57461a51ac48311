"""What each rank of a trial runs."""

from pathlib import Path
from typing import Any

from plumbline.core.run.device import device_name
from plumbline.core.text import byte_pair
from plumbline.data_parallel.ranks.rank import Rank, main
from plumbline.data_parallel.settings import ModelSettings, OperationSettings, TrainingSettings
from plumbline.data_parallel.training.data import open_tokens
from plumbline.data_parallel.training.loop import Run, Trainer


def train(rank: Rank, request: dict[str, Any]) -> None:
    """Trains to the end, or until asked to stop; rank 0 answers with what the record holds."""
    run = Run(
        model=ModelSettings.model_validate(request["model"]),
        training=TrainingSettings.model_validate(request["training"]),
        operation=OperationSettings.model_validate(request["operation"]),
        checkpoint=Path(request["checkpoint"]),
        results=Path(request["results"]),
        **{name: request[name] for name in ("method", "batch", "seed", "identity")},
    )
    trainer = Trainer(run, open_tokens(Path(request["tokens"])), byte_pair.load(Path(request["tokenizer"])), rank)
    if trainer.train_to_the_end():
        rank.answer(trainer.measurements() | {"device": device_name(rank.device)})


if __name__ == "__main__":
    main(train)
