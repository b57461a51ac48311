"""Byte-level byte-pair encoding, in the file formats of transformers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from plumbline.core.errors import UserError

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
MIN_COUNT = 2
"""Pairs of tokens that occur less often are not merged."""

# Written by hand because transformers takes seconds to import. There is no separate beginning-of-text token: each
# document follows the end of the one before.
CONFIG: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": END_OF_TEXT,
    "bos_token": END_OF_TEXT,
    "pad_token": END_OF_TEXT,
    "clean_up_tokenization_spaces": False,
    "model_max_length": 10**30,
}


def train(texts: Iterable[list[str]], vocabulary: int, setting: str) -> Tokenizer:
    """A tokenizer of `vocabulary` tokens: 0 is the end of text, then the 256 bytes, then merges, most frequent first.

    texts: batches of texts, streamed. setting: the config key of the vocabulary, for messages. Raises UserError when
    the text has too few frequent pairs for that many merges.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=MIN_COUNT,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    reached = tokenizer.get_vocab_size()
    if reached < vocabulary:
        raise UserError(
            f"{setting}: is {vocabulary}, but the text allows only {reached} tokens, because a merge needs a pair that"
            f" occurs {MIN_COUNT} times; lower it to {reached} or give more text"
        )
    return tokenizer


def load(path: Path) -> Tokenizer:
    """The tokenizer in the file `path`. An end-of-text marker inside a text is encoded as plain characters.

    Raises UserError when the file is not a tokenizer that `train` made.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more specific
        raise UserError(f"{path}: is not a tokenizer ({error}); delete it to have it rebuilt") from error
    if tokenizer.token_to_id(END_OF_TEXT) != END_OF_TEXT_ID:
        raise UserError(f"{path}: its first token is not {END_OF_TEXT}; delete it to have it rebuilt")
    tokenizer.encode_special_tokens = True
    return tokenizer
