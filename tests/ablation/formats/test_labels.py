"""A CSV of labels is read as programs and spreadsheets write it."""

import unicodedata
from pathlib import Path

import pytest

from plumbline.ablation.formats.labels import labelled
from plumbline.core.errors import UserError

PLAIN = "adapter,label\na.safetensors,cat\nb.safetensors,dog\n"
WRITTEN = {
    "plain": PLAIN.encode(),
    "UTF-8 with its mark": PLAIN.encode("utf-8-sig"),
    "UTF-16": PLAIN.replace(",", "\t").encode("utf-16"),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "CRLF": PLAIN.replace("\n", "\r\n").encode(),
    "case and blanks": b" Adapter , LABEL \n a.safetensors , cat \nb.safetensors ,dog\n",
    "quoted": b'"adapter";"label"\n"a.safetensors";"cat"\n"b.safetensors";"dog"\n',
    "empty lines and columns": b"adapter,label,,\n\na.safetensors,cat,,\n,,,\nb.safetensors,dog,,\n,,,\n",
    "another order": b"note,label,adapter\nx,cat,a.safetensors\ny,dog,b.safetensors\n",
}


def save(folder: Path, data: bytes, *files: str) -> Path:
    for file in files or ("a.safetensors", "b.safetensors"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")
    (folder / "labels.csv").write_bytes(data)
    return folder / "labels.csv"


@pytest.mark.parametrize("form", WRITTEN)
def test_every_form_of_a_csv_gives_the_same_labels(tmp_path: Path, form: str) -> None:
    found = labelled(tmp_path, save(tmp_path, WRITTEN[form]))
    assert [(one.file.name, one.label) for one in found] == [("a.safetensors", "cat"), ("b.safetensors", "dog")]


def test_ids_are_whole_numbers_of_any_size(tmp_path: Path) -> None:
    lines = f"adapter,label,num_images,image_ids\na.safetensors,cat,4.0,{2**64 - 1} 007 {2**53 + 1} 12.0\n"
    (found,) = labelled(tmp_path, save(tmp_path, lines.encode()))
    assert (found.num_images, found.image_ids) == (4, (2**64 - 1, 7, 2**53 + 1, 12))


@pytest.mark.parametrize("name", ["run/01", "run\\01", "run\\01\\x.safetensors"])
def test_an_adapter_is_a_file_or_a_folder_with_one_also_in_windows_spelling(tmp_path: Path, name: str) -> None:
    (found,) = labelled(tmp_path, save(tmp_path, f"adapter,label\n{name},cat\n".encode(), "run/01/x.safetensors"))
    assert found.file == tmp_path / "run/01/x.safetensors"


def test_accents_match_in_either_normal_form(tmp_path: Path) -> None:
    mac, other = (unicodedata.normalize(form, "naïve.safetensors") for form in ("NFD", "NFC"))
    (found,) = labelled(tmp_path, save(tmp_path, f"adapter,label\n{other},{mac}\n".encode(), mac))
    assert found.file == tmp_path / mac
    assert found.label == other


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"file,label\na,b\n", r"has no column adapter \(it has: file, label\)"),
        (b"adapter,Label,label\na,b,c\n", "has two columns label"),
        (b"", "has no column adapter .it has: none"),
        (b"adapter,label\na.safetensors,big, cat\n", "line 2: has more cells than headings"),
        ("adapter,label\nnaïve.safetensors,cat\n".encode("latin-1"), "cannot be read as a CSV in UTF-8"),
        (b"adapter,label,image_ids\na.safetensors,cat,1.8446744073709552e+19\n", "line 2: image_ids: .* lost its last"),
        (b"adapter,label,num_images\na.safetensors,cat,many\n", "line 2: num_images must hold whole numbers"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"adapter,label\n..\\secret.safetensors,cat\n", "is outside"),
    ],
)
def test_a_csv_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        labelled(tmp_path, save(tmp_path, data))


def test_a_pickle_and_a_broken_link_are_listed_with_what_is_wrong(tmp_path: Path) -> None:
    labels = save(tmp_path, b"adapter,label\na.bin,cat\nlink.safetensors,dog\n", "a.bin")
    (tmp_path / "link.safetensors").symlink_to("nowhere")
    pickle, link = labelled(tmp_path, labels)
    assert "PyTorch pickle" in pickle.fault
    assert "is a link to nowhere" in link.fault
