"""Small models for tests: a tokenizer and text from the standard library, weights drawn or really trained."""

import argparse
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from plumbline.throughput.models.random import write_model
from plumbline.throughput.settings import Architecture

VOCABULARY = 300
SMALL = {"vocabulary": VOCABULARY, "context": 32, "width": 32, "hidden": 48, "layers": 2, "heads": 4}
CODE = {"code": "c", "inputs": "i"}


def documents() -> list[str]:
    """The source of argparse and textwrap, cut at blank lines."""
    return [part for module in (argparse, textwrap) for part in inspect.getsource(module).split("\n\n") if part.strip()]


def write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(documents(), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_random(folder: Path, *, tokenizer: bool = True, seed: int = 0, **changes: Any) -> Path:
    """A folder as transformers saves it, with weights drawn from the seed."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, Architecture(**{**SMALL, **changes}), seed)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 0, "bos_token_id": 0}))
    if tokenizer:
        write_tokenizer(folder)
    return folder


def write_trained(folder: Path, steps: int) -> Path:
    """A folder with a model that was trained on the training documents of `write_corpus`."""
    from transformers import AutoModelForCausalLM

    write_random(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = torch.tensor([token for text in split()[0] for token in [*tokenizer.encode(text).ids, 0]])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        starts = torch.randint(len(ids) - 32, (16,), generator=draw)
        tokens = ids[starts[:, None] + torch.arange(32)]
        loss = torch.nn.functional.cross_entropy(model(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_file({name: weight.detach() for name, weight in model.named_parameters()}, folder / "model.safetensors")
    return folder


def split() -> tuple[list[str], list[str]]:
    """Training and validation documents: every fourth is held out."""
    texts = documents()
    return [text for i, text in enumerate(texts) if i % 4], texts[::4]


def write_corpus(folder: Path) -> Path:
    """The manifest of a corpus as the study lr_sweep writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(text, side) for side, texts in enumerate(split()) for text in texts]
    table = {
        "name": [str(number) for number in range(len(rows))],
        "text": [text for text, _ in rows],
        "validation": [bool(side) for _, side in rows],
    }
    pq.write_table(pa.table(table), folder / "documents.parquet", row_group_size=40)
    (folder / "manifest.json").write_text("{}")
    return folder / "manifest.json"


def change_weight(folder: Path, name: str, value: float) -> None:
    """Sets the first number of a weight."""
    tensors = load_file(folder / "model.safetensors")
    tensors[name].view(-1)[0] = value
    save_file(tensors, folder / "model.safetensors")
