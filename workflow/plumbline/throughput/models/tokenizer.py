"""The tokenizer in a model's folder: how it encodes text, and what it puts before it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from plumbline.core.errors import UserError, one_line
from plumbline.core.files import read_json
from plumbline.throughput.models.weights import check_is_no_pointer

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
TOKENIZER_FILES = (
    TOKENIZER,
    SETTINGS,
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
SAMPLING = ("dropout", "alpha", "nbest_size")
"""Options of a stored vocabulary model that make an encoding random, for training."""
KEY = "throughput.text.beginning_of_text"

Beginning = Literal["auto", "always", "never"]
Encode = Callable[[str], list[int]]


class TextTokenizer(NamedTuple):
    """A model's tokenizer, for running text: without padding, truncation or sampling, whatever its file says."""

    encode: Encode
    """Encodes a text, without special tokens."""
    adds: list[int]
    """The special tokens that it puts before a text by itself."""
    names: int | None
    """Its beginning-of-text token; None where it has none."""
    end: list[int]
    """The model's end-of-text token; empty where it has none."""

    def beginning(self, wanted: Beginning) -> list[int]:
        """The tokens that a window begins with. Raises UserError for `always` without such a token."""
        if wanted == "never":
            return []
        if wanted == "always" and not self.adds and self.names is None:
            raise UserError(f"{KEY}: always, but the model's tokenizer names no beginning-of-text token; use auto")
        return self.adds if self.adds or wanted == "auto" else [self.names or 0]

    def note(self, beginning: list[int]) -> list[str]:
        """What the findings say about `beginning`, if anything."""
        if beginning:
            how = "as its tokenizer adds it" if beginning == self.adds else f"as {KEY} asks"
            return [f"each window of text begins with token {', '.join(map(str, beginning))}, {how}"]
        known = self.adds[0] if self.adds else self.names
        if known is None or [known] == self.end:  # which separates the documents anyway
            return []
        return [
            f"windows of text do not begin with the beginning-of-text token ({known}), which some models need for any"
            f" sensible prediction; {KEY}: always adds it"
        ]


def read_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer of the model in `folder`. Raises UserError when it has none, or a damaged one."""
    if not any((folder / name).exists() for name in VOCABULARIES):
        raise UserError(f"{folder}: has no tokenizer ({TOKENIZER}); copy the model's own into it")
    plain, full, id_of = _fast(folder / TOKENIZER) if (folder / TOKENIZER).exists() else _slow(folder)
    settings = read_json(folder / SETTINGS) if (folder / SETTINGS).exists() else {}
    token = settings.get("bos_token")
    token = token.get("content") if isinstance(token, dict) else token
    names = id_of(token) if isinstance(token, str) else _id(folder, "bos_token_id")
    adds = _before(full("a"), plain("a"))
    if (asked := settings.get("add_bos_token")) is not None:  # rules over the tokenizer's file, as in transformers
        adds = (adds or ([] if names is None else [names])) if asked else []
    end = _id(folder, "eos_token_id")
    return TextTokenizer(plain, adds, names, [] if end is None else [end])


def _fast(path: Path) -> tuple[Encode, Encode, Callable[[str], int | None]]:
    """Encoders without and with special tokens, and the id of a token."""
    from tokenizers import Tokenizer

    check_is_no_pointer(path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises nothing more specific
        raise UserError(f"{path}: is not a tokenizer ({one_line(error)}); copy the model's own again") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for option in SAMPLING:
        if hasattr(tokenizer.model, option):
            setattr(tokenizer.model, option, None)

    def encoder(special: bool) -> Encode:
        return lambda text: list(tokenizer.encode(text, add_special_tokens=special).ids)

    return encoder(False), encoder(True), tokenizer.token_to_id


def _slow(folder: Path) -> tuple[Encode, Encode, Callable[[str], int | None]]:
    """The same, for a tokenizer in a format that only transformers can read."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - the many converters raise what they like
        raise UserError(
            f"{folder}: has no {TOKENIZER}, and transformers cannot convert its tokenizer ({one_line(error)}); a"
            f" SentencePiece model needs `pip install sentencepiece protobuf`; or copy the model's {TOKENIZER} into it"
        ) from None

    def encoder(special: bool) -> Encode:
        return lambda text: list(tokenizer.encode(text, add_special_tokens=special, padding=False, truncation=False))

    return encoder(False), encoder(True), tokenizer.get_vocab().get


def _before(full: list[int], plain: list[int]) -> list[int]:
    """The tokens before `plain` in `full`."""
    places = range(len(full) - len(plain) + 1)
    return next((full[:place] for place in places if full[place : place + len(plain)] == plain), [])


def _id(folder: Path, key: str) -> int | None:
    """A token's id by the model's configuration: the first, where it names several."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).exists():
            found = read_json(folder / name).get(key)
            first = found[0] if isinstance(found, list) and found else found
            if isinstance(first, int):
                return first
    return None


def same_vocabulary(folder: Path, other: Path) -> bool:
    """Whether two models map the same tokens to the same ids, as far as their tokenizer.json tells."""
    if not (folder / TOKENIZER).exists() or not (other / TOKENIZER).exists():
        return True
    return _vocabulary(folder / TOKENIZER) == _vocabulary(other / TOKENIZER)


def _vocabulary(path: Path) -> Any:
    model = read_json(path).get("model") or {}
    return model.get("vocab"), model.get("merges")
