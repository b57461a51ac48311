"""Stage `ablation.samples`: a figure of images from the zoo's models, to check that they learned to draw."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from plumbline.ablation.data.layers import DOWN, UP
from plumbline.ablation.zoo.diffusion import load_base
from plumbline.ablation.zoo.images import CLASSES, digits
from plumbline.ablation.zoo.sampling import adapter_samples, base_samples
from plumbline.ablation.zoo.settings import DiffusionSettings
from plumbline.core.plan.target import Spec
from plumbline.core.present.plotting import WIDTH, save, style
from plumbline.core.run.stage import stage

IMAGES_PER_CELL = 4
"""Images in each cell of the figure, in two columns."""


class SamplesSpec(Spec):
    """What decides the figure."""

    model: DiffusionSettings
    scale: float
    """α/r of the adapters."""
    seed: int


@stage
def samples(spec: SamplesSpec, base: Path, shard: Path, output: Path) -> None:
    """Draws, for each class, samples of the base with that prompt, and training images and samples of one adapter.

    shard: a shard of the zoo; the first adapter of each class is used. output: a PNG; a PDF is written beside it.
    """
    torch.set_num_threads(1)
    model = load_base(base, spec.model)
    tensors = load_file(shard)
    labels = tensors["labels"].tolist()
    chosen = [labels.index(label) for label in range(len(CLASSES))]
    factors = {name: tensor[chosen] for name, tensor in tensors.items() if name.endswith((DOWN, UP))}
    seen = tensors["image_ids"][chosen, :IMAGES_PER_CELL]
    rows = {
        "Base, prompted with the class": base_samples(model, IMAGES_PER_CELL, spec.seed)[: len(CLASSES)],
        "Training images of one adapter": torch.from_numpy(digits().pixels)[seen],
        "That adapter, without a prompt": adapter_samples(model, factors, spec.scale, IMAGES_PER_CELL, spec.seed),
    }
    with style():
        save(_grid(rows), output.with_suffix(".pdf"), output)


def _grid(rows: dict[str, Tensor]) -> Figure:
    """A row of cells per entry of `rows`: images (classes, IMAGES_PER_CELL, 8, 8) in [−1, 1], tiled two by two."""
    figure = plt.figure(figsize=(WIDTH, 3.0), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (title, images) in zip(parts, rows.items(), strict=True):
        part.suptitle(title, fontsize=7.5)
        framed = pad(images.clamp(-1, 1), (1, 1, 1, 1), value=-1)
        for cell, image, name in zip(part.subplots(1, len(CLASSES)), framed, CLASSES, strict=True):
            tiled = torch.cat([torch.cat(list(image[:2]), 1), torch.cat(list(image[2:]), 1)], 0)
            cell.imshow(tiled, cmap="gray_r", vmin=-1, vmax=1)
            cell.set(xticks=[], yticks=[])
            cell.set_xlabel(name, fontsize=6.5)
            cell.spines[:].set_visible(False)
    return figure


if __name__ == "__main__":
    samples.main()
