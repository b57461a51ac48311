import pytest

from plumbline.ablation.analysis.source_notes import source_notes

NOTES = {
    "lost": ({"classes_lost": ["dog"]}, "Missing: class dog. None of the adapters there could be read"),
    "lost many": ({"classes_lost": list("abcdefgh")}, "Missing: 8 classes, a, b, c, d, e, f and 2 more."),
    "skipped": ({"skipped": 1}, "Skipped: 1 adapter that could not be read"),
    "alpha": ({"adapters_without_alpha": 24}, "24 of 24 adapters state no α, so ΔW is that of α = r"),
    "assumed": (
        {"adapters_without_alpha": 3, "assume_alpha": 8.0},
        "3 of 24 adapters state no α, so ΔW is that of",
    ),
    "computed": ({"computed": ["LoHa"]}, "B and A are computed (LoHa), not stored, so there is no factor view."),
    "text": ({"text_encoder_keys_left_out": 160}, "Layers of text encoders are left out (160 tensors)."),
    "columns": ({"text_encoder_columns_left_out": 1}, "Layers of text encoders are left out (1 tensor)."),
    "unlisted": ({"files_not_listed": 2}, "The folder holds 2 files that the CSV does not list."),
}


@pytest.mark.parametrize("kind", NOTES)
def test_what_was_left_out_or_assumed_is_told(kind: str) -> None:
    source, sentence = NOTES[kind]
    (told,) = source_notes({"kind": "adapters", **source}, rows=24)
    assert told.startswith(sentence)


def test_nothing_is_told_of_a_source_that_left_nothing_out() -> None:
    assert not list(source_notes({"kind": "zoo", "skipped": 0, "classes_lost": [], "computed": []}, rows=24))
