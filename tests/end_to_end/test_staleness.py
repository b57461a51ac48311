"""Only stale targets run again, and `plumbline status` says why."""

import copy
import json
import os
import shutil
import subprocess
import sys
import time

from house import PARTS, TINY, TRIALS

NOTHING = "Nothing to be done"


def only(waiting, **jobs):
    """Whether `waiting` is exactly these jobs, summary, figures and the study's own target aside from them."""
    return waiting == jobs


def test_second_run_has_nothing_to_do(house):
    assert NOTHING in house.snakemake()


def test_deleting_three_trials_runs_exactly_those_and_the_summaries(house):
    trials = sorted((house.study / "trials").rglob("*.json"))
    assert len(trials) == TRIALS
    times = {path: path.stat().st_mtime_ns for path in trials}
    for path in trials[::4]:
        path.unlink()
    assert only(house.waiting(), ablation_train=3, ablation_summarize=1, ablation_figures=1)
    house.snakemake()
    assert {path for path in trials if path.stat().st_mtime_ns != times[path]} == set(trials[::4])
    assert NOTHING in house.snakemake()


def test_editing_a_representation_runs_it_its_ensemble_and_what_follows(house):
    house.edit("ablation/representations/simple_stats.py", "np.stack(columns", "np.stack(list(columns)")
    # Factor view: simple_stats and the ensemble `pair`, in two layer sets; the product view does not hold it.
    jobs = {"ablation_train": 4, "ablation_learning_curve": 1, "ablation_summarize": 1, "ablation_figures": 1}
    assert only(house.waiting(), ablation_features=1, **jobs)
    status = house.plumbline("status", "--configfile", "tiny.yaml")
    assert "code: ablation.representations.simple_stats._features changed" in " ".join(status.split())


def test_editing_a_function_of_core_runs_exactly_what_calls_it(house):
    house.edit("core/statistics/hypothesis_tests.py", "def holm(p_values: ", "def holm(given: int, p_values: ")
    assert only(house.waiting(), ablation_summarize=1, ablation_figures=1)
    status = house.plumbline("status", "--configfile", "tiny.yaml")
    assert "code: core.statistics.hypothesis_tests.holm changed" in " ".join(status.split())


def test_comments_docstrings_unused_definitions_and_touched_files_make_nothing_stale(house):
    house.edit(
        "core/statistics/hypothesis_tests.py", "import numpy as np", "import numpy as np  # a comment\n\n\nEDIT = 1"
    )
    house.edit("ablation/settings.py", "SOURCES = (", "EDIT = 1\nSOURCES = (")
    house.edit("ablation/train.py", '"""What decides one trial."""', '"""Decides one trial."""')
    later = time.time() + 5
    for part in ("workflow/plumbline/core/files.py", "results/ablation/features/factor/spectral.safetensors"):
        os.utime(house.root / part, (later, later))
    assert NOTHING in house.snakemake()


def test_swapped_values_are_noticed(house):
    settings = copy.deepcopy(TINY)
    training = settings["ablation"]["training"]
    training["layers"], training["max_epochs"] = training["max_epochs"], training["layers"]
    house.configure(settings)
    assert only(house.waiting(), ablation_train=TRIALS, ablation_summarize=1, ablation_figures=1)
    status = house.plumbline("status", "--configfile", "tiny.yaml")
    assert "training.layers: 2 → 4; training.max_epochs: 4 → 2" in status


def test_a_lost_snakemake_folder_loses_nothing(house):
    shutil.rmtree(house.root / ".snakemake")
    assert NOTHING in house.snakemake()


def test_a_changed_setting_is_noticed_even_without_the_snakemake_folder(house):
    shutil.rmtree(house.root / ".snakemake")
    settings = copy.deepcopy(TINY)
    settings["ablation"]["runs"] = 3
    house.configure(settings)
    text = house.snakemake("--dry-run")
    assert "results.json will be renamed to .stale and rebuilt" in text
    assert "runs: 2 → 3" in text
    assert not list(house.study.rglob("*.stale")), "a dry run moves nothing"
    trial = "trials/factor/all_layers/pair.json"
    house.snakemake(f"results/ablation/{trial}")
    runs = [json.loads((house.study / f"{trial}{end}").read_text())["runs"] for end in ("", ".stale")]
    assert [len(own) for own in runs] == [2 * 3, 2 * 2]  # of two classifiers


def test_profile_that_goes_by_file_times_alone_mixes_no_old_trials_with_new_ones(house):
    site = house.root / "site"
    site.mkdir()
    (site / "config.yaml").write_text("rerun-triggers: [mtime]\n")
    settings = copy.deepcopy(TINY)
    settings["ablation"]["training"]["hidden"] = 16
    settings["ablation"]["representations"]["factor"].append("stats")
    house.configure(settings)
    assert house.waiting("--profile", "site")["ablation_train"] == TRIALS + 2
    house.snakemake("--profile", "site", "--workflow-profile", "none", succeeds=False)
    log = (house.study / "logs" / "summarize" / "all.log").read_text()
    assert f"and {TRIALS - 3} more: recorded with settings or code other than today's" in log
    assert "Traceback" not in log


def test_results_folder_may_have_any_name_that_a_shell_would_split(empty_house):
    fewer = {"representations": {"factor": ["simple_stats"], "product": ["stats"]}, "ensembles": {}}
    empty_house.configure({"ablation": TINY["ablation"] | fewer | {"layers": ["all_layers"]}})
    empty_house.snakemake("--config", "results=my $HOME, it's (1)")
    study = empty_house.root / "my $HOME, it's (1)" / "ablation"
    assert len(list((study / "trials").rglob("*.json"))) == 2
    assert (study / "figures" / "gap.png").exists()
    parts = {*PARTS, "tiny.yaml", ".snakemake", ".cache", study.parent.name}
    assert {path.name for path in empty_house.root.iterdir()} <= parts
    assert NOTHING in empty_house.snakemake("--config", "results=my $HOME, it's (1)")


def test_any_deleted_output_is_rebuilt(house):
    for name in ("findings.md", "tables/accuracy.tex", "figures/gap.png"):
        (house.study / name).unlink()
    assert only(house.waiting(), ablation_summarize=1, ablation_figures=1)
    (house.study / "features/factor/spectral.json").unlink()
    (house.study / "trials/factor/all_layers/spectral.json").unlink()
    assert house.waiting()["ablation_features"] == 1


def test_status_imports_neither_torch_nor_pandas(house):
    program = "import sys; from plumbline.cli import app; app(standalone_mode=False); print(*sys.modules, sep=chr(10))"
    command = [sys.executable, "-c", program, "status", "--json", "--configfile", "tiny.yaml"]
    environment = house.environment() | {"PYTHONPATH": str(house.root / "workflow")}
    done = subprocess.run(command, cwd=house.root, env=environment, capture_output=True, text=True, check=True)
    assert {"torch", "pandas", "transformers"}.isdisjoint(done.stdout.splitlines())


def test_status_counts_every_trial(house):
    status = json.loads(house.plumbline("status", "--json", "--configfile", "tiny.yaml"))
    (trials,) = [stage for stage in status["stages"] if stage["trials"] and stage["study"] == "ablation"]
    assert (trials["done"], trials["total"]) == (TRIALS, TRIALS)
    assert f"{TRIALS}/{TRIALS} (100.0%)" in house.plumbline("status", "--configfile", "tiny.yaml")


def test_features_are_the_same_bytes_for_any_number_of_shards(house):
    paths = [house.study / "features" / name for name in ("factor/spectral.safetensors", "product/flat.safetensors")]
    whole = [path.read_bytes() for path in paths]
    settings = copy.deepcopy(TINY)
    for shards in (3, 5):  # of 8 factors and 4 modules: with five, a shard of the modules is empty
        settings["ablation"]["shards"] = shards
        house.configure(settings)
        house.snakemake(*(str(path.relative_to(house.root)) for path in paths))
        assert all(len(list(path.with_suffix("").glob(f"*-of-{shards}.safetensors"))) == shards for path in paths)
        assert [path.read_bytes() for path in paths] == whole
