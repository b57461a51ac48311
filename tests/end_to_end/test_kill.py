"""A run killed at any moment goes on, and ends with what an undisturbed run ends with."""

import itertools
import random
import subprocess
import time

from house import House, contents, kill_group
from plumbline.core.run.progress import read_journal

KILLS = 10
AIMS = ("pretrain", "adapt", "features", "train", None)
"""Stages to kill in turn while they run; None: at any moment, between jobs too."""
LONGEST_SECONDS = 1.5
"""The latest moment of a kill after its stage has started; a job of the tiny study takes some 3 s."""
POLL_SECONDS = 0.02


def enough(hit: set[str]) -> bool:
    """Whether kills hit the zoo and the training; features take half a second, and are hit when they are."""
    return "train" in hit and bool(hit & {"pretrain", "adapt"})


def events(house: House, stage: str) -> list[list[str]]:
    """What the stage's journals tell, a list each."""
    journals = sorted((house.study / "logs" / stage).rglob("*.jsonl"))
    return [[event["event"] for event in read_journal(path) if "event" in event] for path in journals]


def interrupted_stages(house: House) -> set[str]:
    """Stages of which some journal holds a start that no end or failure follows."""
    stages = {path.name for path in (house.study / "logs").iterdir()} if (house.study / "logs").exists() else set()
    return {
        stage
        for stage in stages
        if any("start start" in " ".join([*journal, "start"]) for journal in events(house, stage))
    }


def wait_for(house: House, stage: str | None, process: subprocess.Popen[bytes], deadline: float) -> None:
    """Until the stage has started once more, or the run has ended."""
    if stage is None:
        return
    before = sum(journal.count("start") for journal in events(house, stage))
    while process.poll() is None and time.monotonic() < deadline:
        if sum(journal.count("start") for journal in events(house, stage)) > before:
            return
        time.sleep(POLL_SECONDS)


def take_away(house: House) -> None:
    """What was done before the last kill, in part, so that every aim has work to be killed at."""
    for path in (
        "zoo/base.safetensors",
        "features/factor/spectral.safetensors",
        "trials/factor/all_layers/pair.json",
        "results.json",
    ):
        (house.study / path).unlink(missing_ok=True)


def test_run_killed_at_random_moments_ends_as_an_uninterrupted_one(finished_house, empty_house):
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    killed = 0
    deadline = time.monotonic() + 400
    hit: set[str] = set()
    for aim in itertools.cycle(AIMS):
        if (killed >= KILLS and enough(hit)) or time.monotonic() > deadline:
            break
        process = empty_house.start()
        wait_for(empty_house, aim, process, deadline)
        try:
            process.wait(moments.uniform(0, LONGEST_SECONDS) if aim else moments.uniform(2.5, 7))
        except subprocess.TimeoutExpired:
            kill_group(process)
            killed += 1
            hit = interrupted_stages(empty_house)
        else:
            take_away(empty_house)
    assert killed >= 10, f"only {killed} kills within the time"
    assert enough(hit), f"the kills hit only {hit}, seed {seed}"
    assert "100%" in empty_house.snakemake()
    assert contents(empty_house) == contents(finished_house), f"differs after kills with seed {seed}"
    left_over = [
        path for path in empty_house.study.rglob(".*") if path.name.endswith((".partial", ".checkpoint", ".chunks"))
    ]
    assert not left_over
