"""Stage `ablation.adapt`: trains one shard of the zoo's adapters."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from plumbline.ablation.zoo.adapters import ZooChunk, chunks_of, train_chunk
from plumbline.ablation.zoo.diffusion import load_base
from plumbline.ablation.zoo.settings import AdapterSettings, DiffusionSettings
from plumbline.core.files import write_bytes
from plumbline.core.plan.target import Spec, digest
from plumbline.core.run.device import torch_device
from plumbline.core.run.progress import Progress
from plumbline.core.run.stage import stage


class AdaptSpec(Spec):
    """What decides one shard of the zoo."""

    model: DiffusionSettings
    adapter: AdapterSettings
    adapters: int
    shard: int
    shards: int
    seed: int


@stage
def adapt(spec: AdaptSpec, base: Path, output: Path, device: str = "auto") -> None:
    """Trains the shard's chunks of adapters and writes them to `output`.

    Finished chunks are kept in a folder beside the output until all are done, so that a killed run resumes there.
    """
    chunks = chunks_of(spec.adapters, spec.adapter.chunk)
    share = chunks[len(chunks) * spec.shard // spec.shards : len(chunks) * (spec.shard + 1) // spec.shards]
    finished = output.with_name(f".{output.stem}.{digest(spec.model_dump_json())}.chunks")
    chosen = torch_device(device)
    model = load_base(base, spec.model).to(chosen)
    files = [finished / f"{chunk.start}.safetensors" for chunk in share]
    done = sum(len(chunk) for chunk, file in zip(share, files, strict=True) if file.exists())
    with Progress(sum(map(len, share)), "adapters", done) as progress:
        for chunk, file in zip(share, files, strict=True):
            if not file.exists():
                _write(file, train_chunk(model, spec.model, spec.adapter, chunk, spec.seed, chosen))
                progress.advance(len(chunk))
    _join(files, output)
    shutil.rmtree(finished)


def _write(path: Path, chunk: ZooChunk) -> None:
    columns = {name: getattr(chunk, name) for name in ("labels", "folds", "num_images", "image_ids", "losses")}
    write_bytes(path, save({name: tensor.contiguous() for name, tensor in (chunk.factors | columns).items()}))


def _join(files: Sequence[Path], output: Path) -> None:
    parts = [load_file(file) for file in files]
    write_bytes(output, save({name: torch.cat([part[name] for part in parts]) for name in parts[0]}))


if __name__ == "__main__":
    adapt.main()
