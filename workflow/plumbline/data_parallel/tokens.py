"""Stage `data_parallel.tokens`: the pairs as token sequences `source <eos_de> target <eos_en>`."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import save

from plumbline.core.errors import UserError
from plumbline.core.files import atomic, read_json, write_bytes, write_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.stage import stage
from plumbline.core.text import byte_pair
from plumbline.data_parallel.tokenizer import END_OF_SOURCE, END_OF_TARGET

TRANSLATED = ("validation", "test", "held_out")


class TokensSpec(Spec):
    """What decides the sequences, besides corpus and tokenizer."""

    context: int
    """Longest sequence."""
    too_long: Literal["drop", "truncate"]


@stage
def tokens(spec: TokensSpec, corpus: Path, tokenizer: Path, output: Path) -> None:
    """Writes sequences.safetensors, texts.json (the sentences that are translated), and their counts to `output`.

    Raises UserError when the tokenizer was trained on another corpus, and when no sequence of a split fits the context.
    """
    made_for = read_json(tokenizer.with_name("tokenizer_config.json")).get("corpus_sha256")
    if made_for != read_json(corpus)["content_sha256"]:
        raise UserError(f"{tokenizer}: was trained on another corpus than {corpus}; delete it to have it rebuilt")
    encoder = byte_pair.load(tokenizer)
    ends: tuple[int, int] = tuple(map(encoder.token_to_id, (END_OF_SOURCE, END_OF_TARGET)))  # type: ignore[assignment]
    table = pq.read_table(corpus.with_name("pairs.parquet"))
    arrays: dict[str, np.ndarray] = {}
    counts: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    splits = table["split"].to_pylist()
    sides = [table[side].to_pylist() for side in ("source", "target")]
    encoded = [[one.ids for one in encoder.encode_batch(texts)] for texts in sides]
    for split in dict.fromkeys(splits):
        rows = [row for row, of in enumerate(splits) if of == split]
        kept, sequences, prompts, too_long = _fitting(rows, encoded, ends, spec)
        if not kept:
            raise UserError(
                f"data_parallel.model.context: is {spec.context} tokens, and no sequence of the split {split} fits;"
                " raise it"
            )
        arrays[f"{split}.ids"] = np.concatenate(sequences).astype(np.int32)
        arrays[f"{split}.offsets"] = np.cumsum([0, *map(len, sequences)]).astype(np.int64)
        arrays[f"{split}.prompts"] = np.array(prompts, np.int64)
        counts[split] = {
            "sequences": len(kept),
            "too_long": too_long,
            "tokens": sum(map(len, sequences)),
            "target_tokens": sum(map(len, sequences)) - sum(prompts),
        }
        if split in TRANSLATED:
            texts[split] = {
                name: [side[row] for row in kept] for name, side in zip(("source", "target"), sides, strict=True)
            }
    meta = {
        "vocabulary": encoder.get_vocab_size(),
        "end_of_source": ends[0],
        "end_of_target": ends[1],
        "splits": counts,
    }
    with atomic(output.parent) as folder:
        folder.mkdir()
        write_bytes(folder / "sequences.safetensors", save(arrays))
        write_json(folder / "texts.json", texts)
        write_json(folder / "meta.json", meta)


def _fitting(
    rows: list[int], encoded: list[list[list[int]]], ends: tuple[int, int], spec: TokensSpec
) -> tuple[list[int], list[list[int]], list[int], int]:
    """The rows that are kept, their sequences, the lengths of their prompts, and how many were too long."""
    kept, sequences, prompts, too_long = [], [], [], 0
    for row in rows:
        prompt = [*encoded[0][row], ends[0]]
        sequence = [*prompt, *encoded[1][row], ends[1]]
        if len(sequence) > spec.context:
            too_long += 1
            if spec.too_long == "drop" or len(prompt) >= spec.context:  # nothing of the target would be left
                continue
            sequence = sequence[: spec.context]
        kept.append(row)
        sequences.append(sequence)
        prompts.append(len(prompt))
    return kept, sequences, prompts, too_long


if __name__ == "__main__":
    tokens.main()
