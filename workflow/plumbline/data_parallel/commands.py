"""What the study adds to the command line: `plumbline show data_parallel`."""

from typing import Any


def row(record: dict[str, Any]) -> dict[str, Any]:
    """What `plumbline show` says of a trial first. Rate: tokens of all ranks and epochs ÷ their time."""
    epochs, test = record["epochs"], record["translations"].get("test", {})
    tokens, seconds = (sum(epoch[name] for epoch in epochs) for name in ("tokens", "training_time"))
    head = {name: record.get(name) for name in ("trial", "method", "scaling", "world", "batch")}
    rate = tokens / seconds * record["world"] if epochs else None
    last = epochs[-1]["validation_loss"] if epochs else None
    return head | {"tokens_per_second": rate, "validation_loss": last, "test_bleu": test.get("bleu")}
