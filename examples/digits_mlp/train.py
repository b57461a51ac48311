"""Trains a small network on the digits of scikit-learn. A plain script: it knows nothing of Plumbline.

python train.py --lr 0.003 --width 32 --seed 0 --out some/folder
"""

import argparse
import json
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

EPOCHS, BATCH, TRAINING = 15, 64, 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels))
    training, validation = order[:TRAINING], order[TRAINING:]

    model = nn.Sequential(nn.Linear(64, options.width), nn.ReLU(), nn.Linear(options.width, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    accuracy = loss = 0.0
    with (options.out / "metrics.jsonl").open("w") as curves:
        for epoch in range(EPOCHS):
            for batch in training[torch.randperm(TRAINING)].split(BATCH):
                optimizer.zero_grad()
                cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
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
