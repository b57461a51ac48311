"""Text as windows of tokens, for calibration, perplexity and prompts."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from plumbline.core.errors import UserError, one_line
from plumbline.core.text.lines import JSON_LINES, json_texts, lines
from plumbline.throughput.models.tokenizer import TextTokenizer

SPREAD = 4
"""Read this many times the tokens needed, so that windows come from more documents."""
PIECE_CHARACTERS = 2**18
"""A longer file is encoded in pieces of about this size."""


class Piece(NamedTuple):
    """A document, or a part of one."""

    text: str
    ends: bool
    """Whether the document ends here."""


def corpus_documents(manifest: Path, validation: bool, seed: int) -> Iterator[Piece]:
    """The training or validation documents of a corpus of the study lr_sweep, in an order drawn from the seed.

    Reads documents.parquet beside `manifest` (columns text and validation), one row group at a time. Raises UserError
    when it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = manifest.with_name("documents.parquet")
    draw = torch.Generator().manual_seed(seed)
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for group in torch.randperm(file.num_row_groups, generator=draw).tolist():
                table = file.read_row_group(group, columns=["text", "validation"], use_threads=False)
                texts, held_out = table["text"].to_pylist(), table["validation"].to_pylist()
                for row in torch.randperm(len(texts), generator=draw).tolist():
                    if held_out[row] == validation:
                        yield Piece(texts[row], ends=True)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"{path}: is not a complete corpus ({one_line(error)}); delete it to have it rebuilt") from None


def file_documents(paths: Iterable[Path], place: str) -> Iterator[Piece]:
    """The texts of files, each a document; of JSON lines, each line. `place`: the config key of the files.

    Raises UserError for one that is not valid UTF-8 or cannot be read.
    """
    for path in paths:
        if path.suffix in JSON_LINES:
            yield from (Piece(text, ends=True) for text in json_texts(path, place))
        else:
            yield from _pieces(lines(path, place))


def _pieces(found: Iterable[str]) -> Iterator[Piece]:
    """The lines `found` in pieces that end before a line without indentation, where tokenizers split words anyway."""
    waiting: list[str] = []
    size = 0
    for line in found:
        breaks = waiting and waiting[-1].endswith("\n") and not line[:1].isspace()
        if size >= PIECE_CHARACTERS and (breaks or size >= 2 * PIECE_CHARACTERS):
            yield Piece("".join(waiting), ends=False)
            waiting, size = [], 0
        waiting.append(line)
        size += len(line)
    yield Piece("".join(waiting), ends=True)


def windows(
    documents: Iterable[Piece], tokenizer: TextTokenizer, count: int, window: int, place: str, begin: Sequence[int] = ()
) -> Tensor:
    """`count` windows of `window` tokens, int64 (count, window), evenly spaced over the concatenated documents.

    Each begins with the tokens `begin`; each document ends with the model's end-of-text token. place: the config key
    of the documents, for messages. Raises UserError when they have too few tokens.
    """
    width = window - len(begin)
    wanted, ids = count * width, list[int]()
    for text, ends in documents:
        ids += tokenizer.encode(text)
        ids += tokenizer.end if ends else []
        if len(ids) >= SPREAD * wanted:
            break
    have = len(ids) // width
    if have < count:
        raise UserError(
            f"{place}: {len(ids)} tokens, fewer than {count} windows of {window} need ({wanted});"
            f" add text, or lower {place}_windows or throughput.text.window"
        )
    chosen = torch.arange(count) * have // count
    pieces = torch.tensor(ids[: have * width], dtype=torch.int64).view(have, width)[chosen]
    return torch.cat([torch.tensor([list(begin)] * count, dtype=torch.int64), pieces], dim=1) if begin else pieces


def random_windows(vocabulary: int, count: int, window: int, seed: int) -> Tensor:
    """`count` windows of random tokens, int64 (count, window)."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary, (count, window), generator=draw)
