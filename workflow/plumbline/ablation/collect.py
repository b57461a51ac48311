"""Stage `ablation.collect`: reads the adapters of the configured source into the adapter store."""

from pathlib import Path
from typing import Any

from plumbline.ablation.sources.interface import source
from plumbline.ablation.zoo.images import CLASSES
from plumbline.core.plan.target import Spec
from plumbline.core.run.stage import stage


class CollectSpec(Spec):
    """What decides the adapter store."""

    source: str
    options: dict[str, Any]
    fingerprint: list[str]
    """Fingerprints of the user's files and folders, if any are read."""


@stage
def collect(spec: CollectSpec, output: Path, shards: list[Path] | None = None) -> None:
    """Writes the adapter store whose manifest is `output`. shards: the zoo's shards, if the zoo is the source."""
    more: dict[str, Any] = {"shards": shards, "classes": CLASSES} if spec.source == "zoo" else {}
    source(spec.source)(output.parent, **spec.options, **more)


if __name__ == "__main__":
    collect.main()
