"""Stage `ablation.features`: computes one representation of every adapter."""

import time
from pathlib import Path

from plumbline.ablation.data.feature_file import feature_writer, join, seconds_of
from plumbline.ablation.data.feature_pass import feature_blocks, width
from plumbline.ablation.data.store import AdapterStore
from plumbline.ablation.representations import interface
from plumbline.ablation.settings import View
from plumbline.core.files import write_json
from plumbline.core.plan.target import Spec
from plumbline.core.registry import short_name
from plumbline.core.run.progress import Progress
from plumbline.core.run.stage import stage


class FeaturesSpec(Spec):
    """What decides the features of one representation, over all layers or, with `shard`, over a share of them."""

    view: View
    representation: str
    shard: tuple[int, int] | None = None
    """(index, count); None for all layers."""


@stage
def features(spec: FeaturesSpec, adapters: Path, output: Path, shards: list[Path] | None = None) -> None:
    """Writes one representation of every adapter to `output`, or joins it from `shards` if any are given.

    adapters: the store's manifest. The wall time is written beside the output, as .json.
    """
    began = time.perf_counter()
    if shards:
        join(shards, output)
    else:
        compute(spec, AdapterStore(adapters.parent), output)
    seconds = time.perf_counter() - began + sum(seconds_of(shard) for shard in shards or [])
    write_json(output.with_suffix(".json"), {"seconds": seconds})


def compute(spec: FeaturesSpec, store: AdapterStore, output: Path) -> None:
    """Writes the features of the layers in the spec's shard to `output`."""
    represent = interface.load(spec.representation)
    index, count = spec.shard or (0, 1)
    layers = (store.blocks if not store.computed else []) if spec.view == "factor" else store.modules
    names = [layer.name for layer in layers]
    share = names[len(names) * index // count : len(names) * (index + 1) // count]
    widths = {name: width(store, represent, spec.view, name) for name in share}
    metadata = {"view": spec.view, "representation": short_name(spec.representation)}
    with (
        feature_writer(output, store.rows, widths, metadata) as writer,
        Progress(store.rows * len(share), "matrices") as progress,
    ):
        for name, _, chunk in feature_blocks(store, represent, spec.view, share):
            writer.write(name, chunk)
            progress.advance(len(chunk))


if __name__ == "__main__":
    features.main()
