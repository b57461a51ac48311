"""Stage `lr_sweep.tokenizer`: a byte-level BPE trained on the training documents."""

from pathlib import Path

from plumbline.core.files import atomic, write_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.progress import track
from plumbline.core.run.stage import stage
from plumbline.core.text import byte_pair, documents


class TokenizerSpec(Spec):
    """What decides the tokenizer."""

    vocabulary: int


@stage
def tokenizer(spec: TokenizerSpec, corpus: Path, output: Path) -> None:
    """Writes the tokenizer to `output` and tokenizer_config.json beside it: a folder that AutoTokenizer loads.

    corpus: a file in the corpus folder; its validation documents are not used.
    """
    batches = documents.count_batches(corpus.parent)
    texts = (batch.training_texts for batch in track(documents.read(corpus.parent), batches, "parts of the corpus"))
    trained = byte_pair.train(texts, spec.vocabulary, "lr_sweep.model.vocabulary")
    with atomic(output.parent) as folder:
        folder.mkdir()
        trained.save(str(folder / output.name))
        write_json(folder / "tokenizer_config.json", byte_pair.CONFIG)


if __name__ == "__main__":
    tokenizer.main()
