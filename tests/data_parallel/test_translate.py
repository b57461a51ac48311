"""Translations of a model with random weights."""

import numpy as np
import pytest

from data_parallel.small import MODEL, build_tokens
from plumbline.core.text import byte_pair
from plumbline.data_parallel.training.data import open_tokens
from plumbline.data_parallel.training.model import gpt2
from plumbline.data_parallel.training.translate import translate


@pytest.mark.parametrize("seed", range(3))
def test_translation_does_not_depend_on_the_longer_prompts_beside_it(tmp_path, seed):
    """The context leaves the longest prompt four tokens, and the shortest more."""
    meta = build_tokens(tmp_path)
    tokens = open_tokens(meta)
    tokenizer = byte_pair.load(tmp_path / "tokenizer" / "tokenizer.json")
    split = tokens.splits["train"]
    short, long = int(split.prompts.argmin()), int(split.prompts.argmax())
    context = int(split.prompts[long]) + 4
    settings = MODEL.model_copy(update={"context": context})
    model = gpt2(settings, tokens.vocabulary, tokens.end_of_target, seed, "cpu")

    def translated(*indices: int) -> list[str]:
        wanted = {"end": tokens.end_of_target, "longest": 32}
        return translate(model, tokenizer, split, np.array(indices), **wanted)

    together = translated(long, short, long)
    assert together == [*translated(long), *translated(short), *translated(long)]
    assert len(tokenizer.encode(together[1]).ids) > 4
