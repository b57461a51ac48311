import json

import numpy as np
import pytest
import torch

from lr_sweep.training_runs import VOCABULARY, write_tokens
from plumbline.core.errors import UserError
from plumbline.lr_sweep.training.data import TrainingWindows, open_tokens, validation_batches

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens")


def windows(tokens, seed=0):
    return TrainingWindows(tokens, batch=5, context=7, seed=seed, device=CPU)


def test_tokens_are_read_through_a_map(folder):
    tokens = open_tokens(folder)
    assert isinstance(tokens.train, np.memmap)
    assert (len(tokens.train), len(tokens.validation), tokens.vocabulary) == (4000, 400, VOCABULARY)


def test_cut_token_file_is_a_mistake_that_names_it(folder):
    path = folder / "train.bin"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"train\.bin: has 7997 bytes instead of 8000"):
        open_tokens(folder)


def test_missing_token_file_is_a_mistake_that_names_it(folder):
    (folder / "validation.bin").unlink()
    with pytest.raises(UserError, match=r"validation\.bin: does not exist"):
        open_tokens(folder)


def test_unknown_type_of_tokens_is_refused(folder):
    meta = json.loads((folder / "meta.json").read_text()) | {"dtype": "float16"}
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match="float16"):
        open_tokens(folder)


def test_wide_tokens_keep_their_values(tmp_path):
    folder = write_tokens(tmp_path / "tokens")
    wide = np.arange(100_000, 100_400, dtype="<u4")
    wide.tofile(folder / "train.bin")
    wide.tofile(folder / "validation.bin")
    meta = json.loads((folder / "meta.json").read_text())
    meta |= {"dtype": "uint32", "train_tokens": 400, "validation_tokens": 400}
    (folder / "meta.json").write_text(json.dumps(meta))
    inputs, targets = windows(open_tokens(folder).train).draw()
    assert int(inputs.min()) >= 100_000
    assert torch.equal(inputs + 1, targets)


def test_windows_are_stretches_of_the_corpus_with_targets_one_further():
    inputs, targets = windows(np.arange(50, dtype=np.uint16)).draw()
    assert inputs.shape == targets.shape == (5, 7)
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(7))


def test_every_place_of_the_corpus_is_drawn():
    own = windows(np.arange(10, dtype=np.uint16))
    starts = {int(start) for _ in range(40) for start in own.draw()[0][:, 0]}
    assert starts == {0, 1, 2}


def test_draws_go_on_where_the_position_says(folder):
    first, second = windows(open_tokens(folder).train), windows(open_tokens(folder).train, seed=9)
    first.draw()
    second.position = first.position
    for _ in range(3):
        assert torch.equal(first.draw()[0], second.draw()[0])


def test_seed_decides_the_order(folder):
    tokens = open_tokens(folder).train
    assert torch.equal(windows(tokens).draw()[0], windows(tokens).draw()[0])
    assert not torch.equal(windows(tokens).draw()[0], windows(tokens, seed=1).draw()[0])


def test_validation_windows_span_the_validation_side_from_end_to_end():
    batches = validation_batches(np.arange(101, dtype=np.uint16), windows=10, batch=4, context=10, device=CPU)
    inputs = torch.cat([inputs for inputs, _ in batches])
    targets = torch.cat([targets for _, targets in batches])
    assert inputs.shape == (10, 10)
    assert (int(inputs[0, 0]), int(targets[-1, -1])) == (0, 100)
    assert torch.equal(targets, inputs + 1)


@pytest.mark.parametrize(("tokens", "windows"), [(101, 10), (100, 9), (11, 1)])
def test_more_validation_windows_than_the_text_holds_are_all_that_it_holds(tokens, windows):
    batches = validation_batches(np.arange(tokens, dtype=np.uint16), windows=100_000, batch=4, context=10, device=CPU)
    assert sum(len(inputs) for inputs, _ in batches) == windows


def test_corpus_shorter_than_a_window_is_refused():
    short = np.arange(7, dtype=np.uint16)
    with pytest.raises(UserError, match="7 training tokens"):
        windows(short)
    with pytest.raises(UserError, match="7 validation tokens"):
        validation_batches(short, windows=2, batch=2, context=7, device=CPU)
