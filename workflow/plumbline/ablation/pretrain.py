"""Stage `ablation.pretrain`: trains the diffusion model that the zoo's LoRAs adapt."""

from pathlib import Path

from safetensors.torch import save

from plumbline.ablation.zoo import pretraining
from plumbline.ablation.zoo.settings import DiffusionSettings, PretrainingSettings
from plumbline.core.files import write_bytes
from plumbline.core.plan.target import Spec
from plumbline.core.run.checkpoint import checkpoint_path, remove_checkpoints
from plumbline.core.run.device import torch_device
from plumbline.core.run.progress import Progress
from plumbline.core.run.stage import stage


class PretrainSpec(Spec):
    """What decides the diffusion base."""

    model: DiffusionSettings
    pretraining: PretrainingSettings
    seed: int


@stage
def pretrain(spec: PretrainSpec, output: Path, device: str = "auto") -> None:
    """Trains the base and writes its weights to `output`. Resumes from its checkpoint where there is one."""
    with Progress(spec.pretraining.steps, "steps") as progress:
        weights, losses = pretraining.pretrain(
            spec.model,
            spec.pretraining,
            spec.seed,
            torch_device(device),
            checkpoint=checkpoint_path(output, spec.model_dump_json()),
            progress=lambda done: progress.advance(done - progress.done),
        )
    write_bytes(output, save(weights, metadata={"loss": ",".join(f"{loss:.5g}" for loss in losses)}))
    remove_checkpoints(output)


if __name__ == "__main__":
    pretrain.main()
