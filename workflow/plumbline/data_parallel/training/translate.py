"""Translations by greedy decoding, and their BLEU."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from sacrebleu.metrics import BLEU
from tokenizers import Tokenizer

from plumbline.data_parallel.training.data import Indices, Sequences

BATCH = 64


@torch.no_grad()
def translate(
    model: Any,
    tokenizer: Tokenizer,
    sequences: Sequences,
    indices: Indices,
    *,
    end: int,
    longest: int,
    on_batch: Callable[[], object] = lambda: None,
) -> list[str]:
    """The greedy translation of each of `indices`, in batches with a cache; the model's mode stays as it was.

    end: the id that ends a translation. longest: most tokens of one; the model's context may leave fewer. A batch holds
    prompts that may have equally many, so that no translation depends on what it is batched with; they are padded on
    the left.
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()
    texts: dict[int, str] = {}
    limits = np.clip(model.config.n_positions - sequences.prompts[indices], 1, longest)
    for places in _batches(limits):
        prompts = [sequences.row(int(i))[: sequences.prompts[int(i)]] for i in indices[places]]
        width = max(map(len, prompts))
        ids, mask = np.full((len(prompts), width), end, np.int64), np.zeros((len(prompts), width), np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = prompt
            mask[row, width - len(prompt) :] = 1
        made = model.generate(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            max_new_tokens=int(limits[places[0]]),
            do_sample=False,
            use_cache=True,
            eos_token_id=end,
            pad_token_id=end,
        )
        on_batch()
        for place, row in zip(places, made[:, width:].tolist(), strict=True):
            texts[place] = tokenizer.decode(_until(row, end), skip_special_tokens=True)
    model.train(training)
    return [texts[place] for place in range(len(indices))]


def _batches(limits: Indices) -> Iterator[list[int]]:
    """Places of equal limits, at most BATCH at a time."""
    by_limit = np.argsort(limits, kind="stable").tolist()
    for _, equal in groupby(by_limit, key=lambda place: int(limits[place])):
        places = list(equal)
        yield from (places[first : first + BATCH] for first in range(0, len(places), BATCH))


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def bleu(translations: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """sacrebleu's corpus BLEU of detokenised text, 0 to 100, and its signature."""
    metric = BLEU()
    score = metric.corpus_score(list(translations), [list(references)])
    return score.score, str(metric.get_signature())
