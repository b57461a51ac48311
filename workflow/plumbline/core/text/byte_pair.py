"""Byte-level byte-pair encoding, in the files that transformers reads."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from plumbline.core.errors import UserError

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
LEAST_COUNT = 2
"""A pair of tokens that occurs less often is not merged."""

# Written by hand, for transformers takes seconds to import. Without a beginning of text: the end of one document is
# what comes before the next.
CONFIG: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": END_OF_TEXT,
    "bos_token": END_OF_TEXT,
    "pad_token": END_OF_TEXT,
    "clean_up_tokenization_spaces": False,
    "model_max_length": 10**30,
}


def train(texts: Iterable[list[str]], vocabulary: int) -> Tokenizer:
    """A tokenizer of `vocabulary` tokens: the end of text is 0, then the 256 bytes, then merges in order of count.

    texts: batches of them, streamed. Raises UserError when they have too few pairs of tokens for so many merges.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=LEAST_COUNT,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    reached = tokenizer.get_vocab_size()
    if reached < vocabulary:
        raise UserError(
            f"lr_sweep.model.vocabulary: {vocabulary} tokens were asked for, and the corpus allows {reached} (pairs"
            f" that occur {LEAST_COUNT} times); ask for at most {reached}, or give more text"
        )
    return tokenizer


def load(path: Path) -> Tokenizer:
    """The tokenizer in the file `path`, set so that text cannot forge an end of text: there it is plain characters.

    Raises UserError when the file is not a tokenizer of this kind.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"{path}: is not a tokenizer ({error}); delete it to have it rebuilt") from error
    if tokenizer.token_to_id(END_OF_TEXT) != END_OF_TEXT_ID:
        raise UserError(f"{path}: has no {END_OF_TEXT} as its first token; delete it to have it rebuilt")
    tokenizer.encode_special_tokens = True
    return tokenizer
