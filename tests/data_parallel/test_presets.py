"""The presets on folders in the format of their data sets on the hub; only the folder and the sizes are replaced."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from datasets import Dataset, Features, Translation

from data_parallel.small import HEAD, start_stage
from house import PROJECT, House, build
from plumbline import config as configuration
from plumbline.core.files import read_json
from plumbline.data_parallel.corpora import grammar
from plumbline.data_parallel.corpus import CorpusSpec, corpus
from plumbline.data_parallel.settings import CorpusSettings, DataParallelSettings, GrammarCorpus
from plumbline.data_parallel.tokenizer import TokenizerSpec, tokenizer
from plumbline.data_parallel.tokens import TokensSpec, tokens

GENERATED = CorpusSettings(grammar=GrammarCorpus(train=60, validation=8, test=6, held_out=1))
FILES = {  # one file of `train` is not all of it: the larger data set is cut into several
    "iwslt14": {"train": ["default/train/0000.parquet"]}
    | {split: [f"default/{split}/0000.parquet"] for split in ("validation", "test")},
    "wmt14": {"train": [f"de-en/train-{part:05}-of-00003.parquet" for part in range(3)]}
    | {split: [f"de-en/{split}-00000-of-00001.parquet"] for split in ("validation", "test")},
}
CARDS = {
    "iwslt14": None,  # the branch refs/convert/parquet holds none
    "wmt14": {
        "configs": [
            {
                "config_name": pair,
                "data_files": [{"split": name, "path": f"{pair}/{name}-*"} for name in ("train", "validation", "test")],
            }
            for pair in ("cs-en", "de-en")
        ]
    },
}
SIZES = {
    "model": {"vocabulary": 400, "width": 16, "layers": 1, "heads": 2},
    "training": {"epochs": 1, "translated": 4, "longest_translation": 4},
    "corpus": {"limits": {"train": 50, "validation": 8, "test": 6}},
}


def block(preset: str) -> dict:
    return yaml.safe_load((PROJECT / "presets" / f"{preset}.yaml").read_text())["data_parallel"]


def pairs(split: str) -> list[dict]:
    made = [pair for pair in grammar.load(GENERATED).pairs if pair.split == split]
    return [{"translation": {"de": pair.source, "en": pair.target}} for pair in made]


def write_data_set(preset: str, folder: Path) -> None:
    for split, names in FILES[preset].items():
        rows = pairs(split)
        for part, name in enumerate(names):
            write_rows(rows[part * len(rows) // len(names) : (part + 1) * len(rows) // len(names)], folder / name)
    if card := CARDS[preset]:
        (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
        for split in ("train", "validation", "test"):
            write_rows([{"translation": {"cs": "Ano.", "en": "Yes."}}], folder / "cs-en" / f"{split}-00000.parquet")


def write_rows(rows: list[dict], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = Features({"translation": Translation(languages=list(rows[0]["translation"]))})
    Dataset.from_list(rows, features=features).to_parquet(path)


@pytest.fixture(scope="module", params=["iwslt14", "wmt14"])
def prepared(request, tmp_path_factory) -> tuple[DataParallelSettings, Path]:
    """A preset's settings with its folder and sizes replaced, and what the first three stages make with them."""
    root = tmp_path_factory.mktemp(request.param)
    write_data_set(request.param, root / "hub")
    local = {"corpus": {"hub": {"id": str(root / "hub"), "revision": None}}}
    smaller = configuration.deep_merge(configuration.deep_merge(block(request.param), local), SIZES)
    settings = DataParallelSettings.model_validate(smaller)
    manifest, encoder = root / "corpus" / "manifest.json", root / "tokenizer" / "tokenizer.json"
    corpus(CorpusSpec(corpus=settings.corpus, fingerprint=[], **HEAD), manifest)
    tokenizer(TokenizerSpec(vocabulary=settings.model.vocabulary, **HEAD), manifest, encoder)
    spec = TokensSpec(context=settings.model.context, too_long=settings.model.too_long, **HEAD)
    tokens(spec, manifest, encoder, root / "tokens" / "meta.json")
    return settings, root


def test_a_preset_reads_all_files_of_its_data_set_as_far_as_its_limits_go(prepared):
    _, root = prepared
    assert read_json(root / "corpus" / "manifest.json")["pairs"] == {"train": 50, "validation": 8, "test": 6}
    texts = read_json(root / "tokens" / "texts.json")["test"]
    assert texts["source"] == [row["translation"]["de"] for row in pairs("test")]
    assert texts["target"] == [row["translation"]["en"] for row in pairs("test")]


def test_a_trial_of_a_preset_trains_and_translates(prepared):
    settings, root = prepared
    spec = HEAD | {"model": settings.model.model_dump(), "training": settings.training.model_dump(), "seed": 0}
    spec |= {"method": settings.methods[0], "scaling": "strong", "world": 1, "device": "cpu"}
    output, meta = root / "trials" / "single" / "record.json", root / "tokens" / "meta.json"
    options = ["--tokenizer", root / "tokenizer" / "tokenizer.json", "--log", root / "train.log"]
    _, said = (running := start_stage("train", spec, meta, output, *options)).communicate(timeout=120)
    assert running.returncode == 0, said
    record = json.loads(output.read_text())
    assert record["outcome"] == "ok"
    assert {split: found["sentences"] for split, found in record["translations"].items()} == {
        "validation": 8,
        "test": 6,
    }


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> House:
    return build(tmp_path_factory.mktemp("presets") / "house", "data_parallel")


def planned(house: House, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "data_parallel", "--dry-run", *arguments]
    done = subprocess.run(
        command, cwd=house.root, env=house.environment(), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def jobs(text: str, rule: str) -> int:
    return int(re.search(rf"^{rule} +(\d+)$", text, flags=re.MULTILINE)[1])


@pytest.mark.parametrize(("preset", "trials"), [("iwslt14", 3), ("wmt14", 25)])
def test_a_preset_plans_one_trial_for_each_world_method_and_scaling(house, preset, trials):
    text = planned(house, "--cores", "2", "--configfile", f"presets/{preset}.yaml")
    assert jobs(text, "data_parallel_train") == trials


def test_the_cluster_preset_asks_slurm_for_the_nodes_that_the_profile_s_comments_name(house):
    profile = house.root / "profiles" / "slurm" / "config.yaml"
    lines = profile.read_text().splitlines()
    first, last = (lines.index(f"  # {rule}") for rule in ("data_parallel_train: &ranks", "throughput_measure:"))
    lines[first:last] = [line.replace("# ", "", 1) for line in lines[first:last]]
    profile.write_text("\n".join(lines) + "\n")
    text = planned(house, "--printshellcmds", "--profile", "profiles/slurm", "--configfile", "presets/wmt14.yaml")
    assert jobs(text, "data_parallel_train") == 25
    asked = re.findall(r"^    resources: (.*)$", text, flags=re.MULTILINE)
    of_ranks = [line for line in asked if "nodes=2" in line and "gres=gpu:8" in line]
    assert len(of_ranks) == 25 + 2
    assert all("mem_mb=64000" in line and "runtime=1440" in line for line in of_ranks)
