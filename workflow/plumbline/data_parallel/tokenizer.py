"""Stage `data_parallel.tokenizer`: one byte-level BPE for both languages, trained on the training pairs."""

from pathlib import Path

import pyarrow.parquet as pq

from plumbline.core.files import atomic, read_json, write_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.stage import stage
from plumbline.core.text import byte_pair

END_OF_SOURCE, END_OF_TARGET = "<eos_de>", "<eos_en>"


class TokenizerSpec(Spec):
    """What decides the tokenizer."""

    vocabulary: int


@stage
def tokenizer(spec: TokenizerSpec, corpus: Path, output: Path) -> None:
    """Writes the tokenizer to `output` and tokenizer_config.json beside it: a folder that AutoTokenizer loads.

    corpus: the manifest in the corpus folder. The last two tokens are the ends of a source and of a target sentence.
    """
    table = pq.read_table(corpus.with_name("pairs.parquet"), filters=[("split", "=", "train")])
    texts = (
        [source, target]
        for source, target in zip(*(table[side].to_pylist() for side in ("source", "target")), strict=True)
    )
    trained = byte_pair.train(texts, spec.vocabulary - 2, "data_parallel.model.vocabulary")
    trained.add_special_tokens([END_OF_SOURCE, END_OF_TARGET])
    with atomic(output.parent) as folder:
        folder.mkdir()
        trained.save(str(folder / output.name))
        of = {"corpus_sha256": read_json(corpus)["content_sha256"]}
        write_json(folder / "tokenizer_config.json", byte_pair.CONFIG | {"eos_token": END_OF_TARGET} | of)


if __name__ == "__main__":
    tokenizer.main()
