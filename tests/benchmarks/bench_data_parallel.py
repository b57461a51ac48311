"""One process's training step against the step that users of transformers write, on the same model and pairs.

    python tests/benchmarks/bench_data_parallel.py --output data_parallel.json [--seconds 40]

Both take turns in one process, in random order, on one thread. The plain loop shuffles the pairs, pads each batch to
its longest, passes an attention mask and labels of -100 where nothing is predicted, and takes the model's own loss and
torch's AdamW, as a Trainer does. Work is counted in tokens without padding. Several processes are compared by the
study itself, in its stage `comparison`, and by `bench_ddp_limits`.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plumbline.core.files import write_json
from plumbline.core.measure.interleave import Candidate, interleave
from plumbline.data_parallel.corpus import CorpusSpec, corpus
from plumbline.data_parallel.methods.interface import replica
from plumbline.data_parallel.settings import DataParallelSettings
from plumbline.data_parallel.tokenizer import TokenizerSpec, tokenizer
from plumbline.data_parallel.tokens import TokensSpec, tokens
from plumbline.data_parallel.training.data import Sequences, batches, open_tokens
from plumbline.data_parallel.training.learner import Learner
from plumbline.data_parallel.training.model import SummedLoss, gpt2

SETTINGS = DataParallelSettings()
STEPS = 8
HEAD = {"code": "", "inputs": ""}
CPU = torch.device("cpu")


def plain_steps(model: Any, split: Sequences, batch: int) -> Callable[[], None]:
    """Steps as one writes them; they go through the epoch's first STEPS batches of a shuffle."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=SETTINGS.training.learning_rate)
    order = np.random.default_rng(0).permutation(len(split))[: STEPS * batch].reshape(STEPS, batch)

    def run() -> None:
        for rows in order:
            sequences = [torch.from_numpy(split.row(int(row)).astype(np.int64)) for row in rows]
            inputs = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in sequences], batch_first=True)
            labels = inputs.masked_fill(mask == 0, -100)
            for place, row in enumerate(rows):
                labels[place, : int(split.prompts[row])] = -100
            model(input_ids=inputs, attention_mask=mask, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    run.tokens = float(split.lengths[order].sum())  # type: ignore[attr-defined]
    return run


def timed(run: Callable[[], None]) -> Callable[[], float]:
    def turn() -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    return turn


def default_tokens(folder: Path) -> Path:
    """Writes what the study trains on by default; the tokens' meta.json."""
    manifest, encoder, meta = folder / "corpus/manifest.json", folder / "tokenizer/t.json", folder / "tokens/meta.json"
    corpus(CorpusSpec(corpus=SETTINGS.corpus, fingerprint=[], **HEAD), manifest)
    tokenizer(TokenizerSpec(vocabulary=SETTINGS.model.vocabulary, **HEAD), manifest, encoder)
    tokens(TokensSpec(context=SETTINGS.model.context, too_long="drop", **HEAD), manifest, encoder, meta)
    return meta


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=40.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        made = open_tokens(default_tokens(Path(name)))
    split, batch = made.splits["train"], SETTINGS.training.batch

    def model() -> Any:
        return gpt2(SETTINGS.model, made.vocabulary, made.end_of_target, 0, CPU)

    learner = Learner(replica("", SummedLoss(model()), None), SETTINGS.training, split, rank=0, device=CPU)
    order = [rows for rows in batches(split.lengths, batch=batch, seed=0, epoch=0) if len(rows) == batch][:STEPS]

    def ours() -> None:
        for number, rows in enumerate(order):
            learner.step(rows, number)

    theirs = plain_steps(model(), split, batch)
    work = float(sum(split.lengths[rows].sum() for rows in order))
    for run in (ours, theirs):
        run()
    rounds = interleave(
        Candidate(name="plain", run=timed(theirs), work=theirs.tokens),  # type: ignore[attr-defined]
        [Candidate(name="plumbline", run=timed(ours), work=work)],
        seconds=options.seconds,
    )
    found = {name: rounds.ratio(name).as_json() for name in rounds.names[1:]}
    print(found)
    write_json(options.output, {"tokens_per_second_over_plain": found, "rounds": len(rounds.seconds)})


if __name__ == "__main__":
    main()
