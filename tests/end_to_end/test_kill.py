"""A run killed at any moment goes on, and ends with what an undisturbed run ends with."""

import random
import subprocess
import time

from house import House, contents, kill_group
from plumbline.core.progress import read_journal

KILLS = 12
LONGEST_SECONDS = 7.0
"""The latest moment of the first kill. A run of the tiny study takes some 30 s, of which Snakemake's start is 2; on a
busy machine a job may need longer than that to end, so that the moment moves out by half a second a kill."""


def enough(hit: set[str]) -> bool:
    """Whether kills hit the zoo and the training; features take half a second, and are hit when they are."""
    return "train" in hit and bool(hit & {"pretrain", "adapt"})


def interrupted_stages(house: House) -> set[str]:
    """Stages of which some journal holds a start that no end or failure follows."""
    found = set()
    for path in (house.study / "logs").rglob("*.jsonl"):
        events = [event["event"] for event in read_journal(path) if "event" in event]
        if "start start" in " ".join([*events, "start"]):
            found.add(path.relative_to(house.study / "logs").parts[0])
    return found


def test_run_killed_at_random_moments_ends_as_an_undisturbed_one(finished_house, empty_house):
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    killed = 0
    deadline = time.monotonic() + 300
    hit: set[str] = set()
    while (killed < KILLS or not enough(hit)) and time.monotonic() < deadline:
        process = empty_house.start()
        try:
            process.wait(moments.uniform(2.5, LONGEST_SECONDS + killed / 2))
        except subprocess.TimeoutExpired:
            kill_group(process)
            killed += 1
            hit = interrupted_stages(empty_house)
        else:
            # Done before the last kill: take a trial and its features away, so that there is work to kill again.
            for path in ("trials/factor/all_layers/pair.json", "features/factor/spectral.safetensors", "results.json"):
                (empty_house.study / path).unlink()
    assert killed >= 10, f"only {killed} kills within the time"
    assert enough(hit), f"the kills hit only {hit}, seed {seed}"
    assert "100%" in empty_house.snakemake()
    assert contents(empty_house) == contents(finished_house), f"differs after kills with seed {seed}"
    left_over = [
        path for path in empty_house.study.rglob(".*") if path.name.endswith((".partial", ".checkpoint", ".chunks"))
    ]
    assert not left_over
