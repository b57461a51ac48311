import errno
import json
import logging
import os
import resource
from pathlib import Path

import pytest
import torch

from plumbline.core.errors import UserError
from plumbline.core.run.checkpoint import checkpoint_path, load_checkpoint, remove_checkpoints, save_checkpoint

IDENTITY = json.dumps({"rate": 0.1})


def test_state_comes_back_to_the_bit(tmp_path):
    path = checkpoint_path(tmp_path / "record.json", IDENTITY)
    state = {"step": 3, "weights": torch.randn(4, 5), "random": torch.get_rng_state()}
    save_checkpoint(path, IDENTITY, state)
    read = load_checkpoint(path, IDENTITY)
    assert read["step"] == 3
    assert torch.equal(read["weights"], state["weights"])
    assert torch.equal(read["random"], state["random"])


def test_without_a_checkpoint_the_stage_starts_from_the_beginning(tmp_path):
    assert load_checkpoint(tmp_path / "none.checkpoint", IDENTITY) is None


def test_the_checkpoint_of_another_spec_is_left_and_the_difference_logged(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("plumbline"), "propagate", True)
    path = tmp_path / "a.checkpoint"
    save_checkpoint(path, IDENTITY, {"step": 3})
    assert load_checkpoint(path, json.dumps({"rate": 0.2})) is None
    assert "rate: 0.1 → 0.2" in caplog.text
    assert path.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_a_broken_checkpoint_is_named_with_the_fix(tmp_path, content):
    path = tmp_path / "a.checkpoint"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.checkpoint: is not a checkpoint .*delete it"):
        load_checkpoint(path, IDENTITY)


@pytest.mark.parametrize("held", [torch.zeros(3), [1], {"step": 1}])
def test_a_file_of_torch_with_something_else_in_it_is_named(tmp_path, held):
    torch.save(held, tmp_path / "a.checkpoint")
    with pytest.raises(UserError, match=r"a\.checkpoint: is not a checkpoint \(\w+\); delete it"):
        load_checkpoint(tmp_path / "a.checkpoint", IDENTITY)


def test_pickled_code_in_a_checkpoint_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"identity": Bomb()}, tmp_path / "a.checkpoint")
    with pytest.raises(UserError, match="is not a checkpoint"):
        load_checkpoint(tmp_path / "a.checkpoint", IDENTITY)
    assert not (tmp_path / "ran").exists()


def test_a_write_that_the_system_cuts_short_keeps_the_checkpoint_before(tmp_path):
    path = tmp_path / "a.checkpoint"
    save_checkpoint(path, IDENTITY, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            save_checkpoint(path, IDENTITY, {"step": 2, "weights": torch.zeros(60_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(path, IDENTITY)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.checkpoint"]


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    path = tmp_path / "a.checkpoint"
    save_checkpoint(path, IDENTITY, {"step": 3})

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left"):
        save_checkpoint(path, IDENTITY, {"step": 4})
    monkeypatch.undo()
    assert load_checkpoint(path, IDENTITY)["step"] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["a.checkpoint"]


def test_a_finished_stage_leaves_no_checkpoint_of_any_spec(tmp_path):
    output = tmp_path / "record.json"
    for identity in (IDENTITY, "{}"):
        save_checkpoint(checkpoint_path(output, identity), identity, {})
    remove_checkpoints(output)
    assert list(tmp_path.iterdir()) == []
