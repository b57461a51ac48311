"""Trains a small network on the digits of scikit-learn. A plain script: it knows nothing of Plumbline.

python train.py --lr 0.003 --width 32 --seed 0 --out some/folder

The training takes a fifth of a second, so the script leaves out two imports that take one or two seconds each: sklearn,
for one file of data, and torch.compile, which torch.optim loads.
"""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

EPOCHS, BATCH, TRAINING = 15, 64, 1000


def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 64) from 0 to 1, and their labels (1797,), in the order of sklearn.datasets.load_digits."""
    found = find_spec("sklearn")
    if found is None:
        sys.exit("train.py: scikit-learn, which brings the digits, is not installed: pip install scikit-learn")
    (package,) = found.submodule_search_locations
    table = torch.tensor(np.loadtxt(Path(package, "datasets", "data", "digits.csv.gz"), delimiter=","))
    return table[:, :-1].float() / 16, table[:, -1].long()


@torch.no_grad()
def adam(weights: Tensor, first: Tensor, second: Tensor, lr: float, step: int) -> None:
    """One step of Adam, with the defaults of torch.optim.Adam; updates the moments too, and clears the gradient."""
    first.lerp_(weights.grad, 1 - 0.9)
    second.mul_(0.999).addcmul_(weights.grad, weights.grad, value=1 - 0.999)
    spread = second.sqrt() / (1 - 0.999**step) ** 0.5
    weights.addcdiv_(first, spread + 1e-8, value=-lr / (1 - 0.9**step))
    weights.grad = None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    images, labels = digits()
    order = torch.randperm(len(labels))
    training, validation = order[:TRAINING], order[TRAINING:]

    model = nn.Sequential(nn.Linear(64, options.width), nn.ReLU(), nn.Linear(options.width, 10))
    state = [(weights, torch.zeros_like(weights), torch.zeros_like(weights)) for weights in model.parameters()]
    step, accuracy, loss = 0, 0.0, 0.0
    with (options.out / "metrics.jsonl").open("w") as curves:
        for epoch in range(EPOCHS):
            for batch in training[torch.randperm(TRAINING)].split(BATCH):
                cross_entropy(model(images[batch]), labels[batch]).backward()
                step += 1
                for weights, first, second in state:
                    adam(weights, first, second, options.lr, step)
            with torch.no_grad():
                logits = model(images[validation])
                loss = cross_entropy(logits, labels[validation]).item()
                accuracy = (logits.argmax(1) == labels[validation]).float().mean().item()
            curves.write(json.dumps({"step": epoch, "validation_loss": loss, "validation_accuracy": accuracy}) + "\n")
    parameters = sum(weights.numel() for weights in model.parameters())
    metrics = {"validation_accuracy": accuracy, "validation_loss": loss, "parameters": parameters}
    (options.out / "metrics.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    main()
