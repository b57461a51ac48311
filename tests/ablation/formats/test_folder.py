"""Every class folder and every file that may be an adapter is read, or named with the reason why not."""

from pathlib import Path

import pytest

from plumbline.ablation.formats.folder import Candidate, candidates
from plumbline.core.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def faults(found: list[Candidate]) -> dict[str, str]:
    return {one.name: one.fault for one in found}


def test_files_and_folders_of_a_class_are_its_adapters(tmp_path: Path) -> None:
    names = (
        "cat/a.safetensors",
        "cat/b.sft",
        "cat/c.SAFETENSORS",
        "dog/run/deep/er/x.safetensors",
        "dog/run/notes.txt",
    )
    found = candidates(touch(tmp_path, *names, "README.md", "dog/run/optimizer.bin", "dog/run/training_args.bin"))
    expected = ["cat/a.safetensors", "cat/b.sft", "cat/c.SAFETENSORS", "dog/run"]
    assert [(one.name, one.label, one.fault) for one in found] == [(name, name[:3], "") for name in expected]
    assert found[-1].file == tmp_path / "dog/run/deep/er/x.safetensors"


@pytest.mark.parametrize(
    "name", ["._a.safetensors", ".DS_Store", ".ipynb_checkpoints/a.safetensors", "__MACOSX/cat/._a.safetensors"]
)
@pytest.mark.parametrize("place", ["", "cat/", "cat/run/"])
def test_what_file_managers_leave_behind_is_no_adapter(tmp_path: Path, name: str, place: str) -> None:
    touch(tmp_path, "cat/run/a.safetensors", "dog/b.safetensors", place + name)
    assert faults(candidates(tmp_path)) == {"cat/run": "", "dog/b.safetensors": ""}


def test_numbered_files_without_final_weights_beside_them_are_adapters(tmp_path: Path) -> None:
    names = [f"cat/image-{number:06d}.safetensors" for number in range(3)]
    assert faults(candidates(touch(tmp_path, *names))) == dict.fromkeys(names, "")


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth", "ckpt", "BIN"])
def test_a_pickle_is_named_with_the_way_to_convert_it(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, "cat/a.safetensors", "dog/run/adapter_model." + suffix, f"cat/b.{suffix}", f"cat/a.{suffix}")
    found = faults(candidates(tmp_path))
    assert set(found) == {"cat/a.safetensors", f"cat/b.{suffix}", "dog/run"}  # a was saved in both forms
    assert found["cat/a.safetensors"] == ""
    assert all("safetensors.torch.save_file" in found[name] for name in (f"cat/b.{suffix}", "dog/run"))


def test_a_class_without_adapters_and_a_run_without_weights_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.safetensors", "dog/notes.txt", "eel/run/adapter_config.json")
    found = faults(candidates(tmp_path))
    assert found["dog"] == "is a class folder without any adapter"
    assert found["eel/run"] == "has adapter_config.json, but no weights in a .safetensors file"


def test_links_are_followed_and_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    disk = touch(tmp_path / "disk", "dog/a.safetensors", "blob")
    root = touch(tmp_path / "loras", "cat/a.safetensors", "cat/b.safetensors")
    (root / "dog").symlink_to(disk / "dog", target_is_directory=True)
    (root / "cat" / "linked.safetensors").symlink_to(disk / "blob")
    (root / "cat" / "gone.safetensors").symlink_to("../../blobs/0123")
    (root / "dog" / "up").symlink_to(root, target_is_directory=True)
    found = faults(candidates(root))
    good = {"cat/a.safetensors", "cat/b.safetensors", "cat/linked.safetensors", "dog/a.safetensors"}
    assert {name for name, fault in found.items() if not fault} == good
    assert "is a link to ../../blobs/0123, which does not exist" in found["cat/gone.safetensors"]


def test_a_class_that_is_a_link_to_another_is_named(tmp_path: Path) -> None:
    root = touch(tmp_path, "cat/a.safetensors", "cat/b.safetensors")
    (root / "dog").symlink_to("cat", target_is_directory=True)
    found = faults(candidates(root))
    assert found["cat/a.safetensors"] == ""
    assert "is the same file as" in found["dog/a.safetensors"]


RUN = (
    "cat/run/pytorch_lora_weights.safetensors",
    "cat/run/checkpoint-500/x.safetensors",
    "cat/run/checkpoint-1000/x.safetensors",
)
FLAT = ("cat/run/mine.safetensors", "cat/run/mine-000002.safetensors", "cat/run/mine-000010.safetensors")

BESIDE = ("cat/mine.safetensors", "cat/mine-000002.safetensors", "cat/mine-step00000500.safetensors")


@pytest.mark.parametrize(
    ("names", "checkpoint", "chosen"),
    [
        (RUN, "last", RUN[0]),
        (RUN[1:], "last", RUN[2]),
        (RUN, "checkpoint-500", RUN[1]),
        (FLAT, "last", FLAT[0]),
        (FLAT[1:], "last", FLAT[2]),
        (FLAT, "mine-000002", FLAT[1]),
        (RUN[1:2], "last", RUN[1]),
        (BESIDE, "last", BESIDE[0]),
        (BESIDE, "mine-000002", BESIDE[1]),
        (("cat/a.safetensors",), "checkpoint-500", "cat/a.safetensors"),
    ],
)
def test_one_checkpoint_of_a_run_is_chosen(
    tmp_path: Path, names: tuple[str, ...], checkpoint: str, chosen: str
) -> None:
    (found,) = candidates(touch(tmp_path, *names), checkpoint)
    assert (found.file, found.fault) == (tmp_path / chosen, "")


def test_several_files_of_one_folder_are_named_with_the_key_to_choose(tmp_path: Path) -> None:
    touch(tmp_path, *RUN, *BESIDE, "dog/run/a.safetensors", "dog/run/b.safetensors")
    found = faults(candidates(tmp_path))
    assert "holds 3 .safetensors files (mine, mine-000002, mine-step00000500)" in found["cat/mine.safetensors"]
    assert "holds 3 .safetensors files (checkpoint-500, checkpoint-1000, pytorch_lora_weights)" in found["cat/run"]
    assert "choose one with ablation.adapters.checkpoint" in found["cat/run"]
    assert "no checkpoint that is last" in faults(candidates(tmp_path, "last"))["dog/run"]
    assert "no checkpoint that is step-7; choose one of" in faults(candidates(tmp_path, "step-7"))["cat/run"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.safetensors", "cat/b.safetensors"), r"a\.safetensors: has no class"),
        (("train/cat/a.safetensors", "test/cat/b.safetensors"), "test, train look like splits, not classes"),
        (("blobs/0", "snapshots/1/cat/a.safetensors"), "is a hub cache; point .* at a folder in .*snapshots"),
        (("cat/a.bin", "dog/b.bin"), "holds no .safetensors files, but 2 like a.bin, which is a PyTorch pickle"),
        (("notes.txt",), r"holds no \.safetensors files$"),
    ],
)
def test_a_folder_that_is_not_laid_out_by_class_is_refused(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        candidates(touch(tmp_path, *names))
