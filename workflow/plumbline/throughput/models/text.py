"""Text as windows of tokens, for calibration, perplexity and prompts."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.core.files import read_json

TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
)
VOCABULARIES = (TOKENIZER, "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt")
SPREAD = 4
"""Read this many times the tokens needed, so that windows come from more documents."""

Encoder = Callable[[str], list[int]]


def encoder(folder: Path) -> Encoder:
    """A function that encodes a text for the model in `folder`, followed by the end-of-text id if there is one.

    Raises UserError when the folder has no tokenizer, or a damaged one.
    """
    if not any((folder / name).exists() for name in VOCABULARIES):
        raise UserError(f"{folder}: has no tokenizer ({TOKENIZER}); copy the model's own into it")
    ids = _fast(folder / TOKENIZER) if (folder / TOKENIZER).exists() else _slow(folder)
    end = end_of_text(folder)
    return lambda text: [*ids(text), *end]


def _fast(path: Path) -> Encoder:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises nothing more specific
        raise UserError(f"{path}: is not a tokenizer ({_line(error)}); copy the model's own again") from None
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


def _slow(folder: Path) -> Encoder:
    """A tokenizer in a format that only transformers can read."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, ImportError, KeyError) as error:
        raise UserError(f"{folder}: has no tokenizer that transformers can read ({_line(error)})") from None
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False))


def end_of_text(folder: Path) -> list[int]:
    """The model's end-of-text id; empty if neither of its configurations names one."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).exists():
            found = read_json(folder / name).get("eos_token_id")
            first = found[0] if isinstance(found, list) and found else found
            if isinstance(first, int):
                return [first]
    return []


def same_vocabulary(folder: Path, other: Path) -> bool:
    """Whether two models map the same tokens to the same ids, as far as their tokenizer.json tells."""
    if not (folder / TOKENIZER).exists() or not (other / TOKENIZER).exists():
        return True
    return _vocabulary(folder / TOKENIZER) == _vocabulary(other / TOKENIZER)


def _vocabulary(path: Path) -> Any:
    model = read_json(path).get("model") or {}
    return model.get("vocab"), model.get("merges")


def corpus_documents(manifest: Path, validation: bool, seed: int) -> Iterator[str]:
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
                        yield texts[row]
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"{path}: is not a complete corpus ({_line(error)}); delete it to have it rebuilt") from None


def file_documents(paths: Iterable[Path]) -> Iterator[str]:
    """The texts of files. Raises UserError for one that is not valid UTF-8 or cannot be read."""
    for path in paths:
        try:
            yield path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: byte {error.start} is not valid UTF-8; convert it, or leave it out") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def windows(documents: Iterable[str], encode: Encoder, count: int, window: int, place: str) -> Tensor:
    """`count` windows of `window` tokens, int64 (count, window), evenly spaced over the concatenated documents.

    place: the config key of the documents, for messages. Raises UserError when they have too few tokens.
    """
    wanted, ids = count * window, list[int]()
    for text in documents:
        ids += encode(text)
        if len(ids) >= SPREAD * wanted:
            break
    have = len(ids) // window
    if have < count:
        raise UserError(
            f"{place}: {len(ids)} tokens, fewer than {count} windows of {window} need ({wanted});"
            f" add text, or lower {place}_windows or throughput.text.window"
        )
    chosen = torch.arange(count) * have // count
    return torch.tensor(ids[: have * window], dtype=torch.int64).view(have, window)[chosen]


def random_windows(vocabulary: int, count: int, window: int, seed: int) -> Tensor:
    """`count` windows of random tokens, int64 (count, window)."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary, (count, window), generator=draw)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
