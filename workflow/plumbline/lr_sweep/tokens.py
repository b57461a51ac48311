"""Stage `lr_sweep.tokens`: the corpus as token files that trials memory-map."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from plumbline.core.errors import UserError
from plumbline.core.files import atomic, write_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.progress import track
from plumbline.core.run.stage import stage
from plumbline.core.text import byte_pair, documents
from plumbline.core.text.byte_pair import END_OF_TEXT_ID
from plumbline.core.text.token_files import TokenWriter, dtype_of, unigram_entropy


class TokensSpec(Spec):
    """What decides the token files, in addition to corpus and tokenizer."""

    context: int
    """Length of a training window: each file must have more tokens than that."""


@stage
def tokens(spec: TokensSpec, corpus: Path, tokenizer: Path, output: Path) -> None:
    """Writes train.bin and validation.bin, and their description to `output` beside them.

    corpus: a file in the corpus folder. Raises UserError when either token file is shorter than a window.
    """
    encoder = byte_pair.load(tokenizer)
    vocabulary = encoder.get_vocab_size()
    with atomic(output.parent) as folder:
        folder.mkdir()
        with (
            TokenWriter(folder / "train.bin", vocabulary, END_OF_TEXT_ID) as training,
            TokenWriter(folder / "validation.bin", vocabulary, END_OF_TEXT_ID) as validation,
        ):
            _encode(corpus, encoder, training, validation)
        count = training.documents + validation.documents
        _check_length("training", training, count, spec.context, "give more text")
        more = "give more text or raise lr_sweep.corpus.validation_share" if count > 1 else "give more documents"
        _check_length("validation", validation, count, spec.context, more)
        write_json(folder / output.name, _described(training, validation, vocabulary))


def _encode(corpus: Path, encoder: Tokenizer, training: TokenWriter, validation: TokenWriter) -> None:
    batches = documents.count_batches(corpus.parent)
    for batch in track(documents.read(corpus.parent), batches, "parts of the corpus"):
        for writer, chosen in ((training, ~batch.validation), (validation, batch.validation)):
            texts = [batch.texts[index] for index in chosen.nonzero()[0]]
            encoded = encoder.encode_batch_fast(texts, add_special_tokens=False)
            writer.write((encoding.ids for encoding in encoded), int(batch.bytes[chosen].sum()))


def _check_length(side: str, writer: TokenWriter, documents: int, context: int, fix: str) -> None:
    if writer.tokens < context + 1:
        raise UserError(
            f"lr_sweep.corpus: only {writer.tokens} {side} tokens, fewer than a window of {context + 1}"
            f" (lr_sweep.model.context + 1), from {writer.documents} of {documents} documents; {fix}"
            + (", or lower lr_sweep.model.context" if writer.tokens else "")
        )


def _described(training: TokenWriter, validation: TokenWriter, vocabulary: int) -> dict[str, Any]:
    return {
        "dtype": dtype_of(vocabulary).name,
        "vocabulary": vocabulary,
        "end_of_text": END_OF_TEXT_ID,
        "train_tokens": training.tokens,
        "validation_tokens": validation.tokens,
        "unigram_entropy_nats": unigram_entropy(training.counts, validation.counts),
        "unigram_smoothing": "add one to every training count",
        "bytes_per_token": validation.text_bytes / validation.tokens,
        "bytes_per_token_of": "validation text, end-of-text tokens included",
        "sha256": {"train.bin": training.sha256, "validation.bin": validation.sha256},
    }


if __name__ == "__main__":
    tokens.main()
