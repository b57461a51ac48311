"""Ranks of several hosts: one torchrun on each meets the others, as a Slurm job of two nodes starts them.

`srun` is a script here that starts its command once per node, on this host: the agents share nothing but the address
where they meet and the file system.
"""

import os

from data_parallel.small import MODEL, TRAINING, build_tokens
from plumbline.data_parallel.ranks.board import State, read
from plumbline.data_parallel.ranks.launch import run_ranks

SRUN = """#!/bin/bash
nodes=1
while [[ $1 == --* ]]; do
    [[ $1 == --nodes=* ]] && nodes=${1#--nodes=}
    shift
done
for ((node = 0; node < nodes; node++)); do
    "$@" &
    started+=($!)
done
for pid in "${started[@]}"; do wait "$pid" || status=1; done
exit ${status:-0}
"""


def test_ranks_of_two_agents_compute_what_one_process_does(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "srun").write_text(SRUN)
    (folder / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    request = {"model": MODEL.model_dump(mode="json"), "training": TRAINING.model_dump(mode="json"), "device": "cpu"}
    request |= {"methods": ["ddp", "fsdp"], "worlds": [4], "steps": 5, "seed": 0}
    request |= {"tokens": str(build_tokens(tmp_path))}
    board = tmp_path / "board"
    found = run_ranks("plumbline.data_parallel.ranks.equality", request, world=4, folder=board, timeout=60)
    assert all(one["largest"] <= one["bound"] and one["ranks_agree"] for one in found["differences"])
    assert len(found["differences"]) == 4
    assert [one.state for one in read(board, 4)] == [State.DONE] * 4
