"""Ranks of several hosts: one torchrun on each meets the others, as a Slurm job of two nodes starts them.

`srun` is a script here that starts its command once on each host. The hosts are this one, twice, or two of their own
network each: namespaces with a name, an interface and an address, joined by a cable. They share the file system alone.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from data_parallel.small import MODEL, TRAINING, Trial, build_tokens
from data_parallel.test_faults import ended, wait_for_step
from plumbline.data_parallel.ranks.board import State, read
from plumbline.data_parallel.ranks.launch import run_ranks

SRUN = """#!/bin/bash
nodes=1
while [[ $1 == --* ]]; do
    [[ $1 == --nodes=* ]] && nodes=${1#--nodes=}
    shift
done
for ((node = 0; node < nodes; node++)); do
    ENTER "$@" &
    started+=($!)
done
for pid in "${started[@]}"; do wait "$pid" || status=1; done
exit ${status:-0}
"""
ADDRESSES = ("10.213.77.1", "10.213.77.2")
SHORT = TRAINING.model_copy(update={"epochs": 2})


def slurm_job(folder: Path, enter: str = "") -> dict[str, str]:
    """The variables of a Slurm job of two nodes; `enter` precedes the command on each `$node`."""
    folder.mkdir()
    (folder / "srun").write_text(SRUN.replace("ENTER", enter))
    (folder / "srun").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "1"}


def test_ranks_of_two_agents_compute_what_one_process_does(tmp_path, monkeypatch):
    for name, value in slurm_job(tmp_path / "bin").items():
        monkeypatch.setenv(name, value)
    request = {"model": MODEL.model_dump(mode="json"), "training": TRAINING.model_dump(mode="json"), "device": "cpu"}
    request |= {"methods": ["ddp", "fsdp"], "worlds": [4], "steps": 5, "seed": 0}
    request |= {"tokens": str(build_tokens(tmp_path))}
    board = tmp_path / "board"
    found = run_ranks("plumbline.data_parallel.ranks.equality", request, world=4, folder=board, timeout=60)
    assert all(one["largest"] <= one["bound"] and one["ranks_agree"] for one in found["differences"])
    assert len(found["differences"]) == 4
    assert [one.state for one in read(board, 4)] == [State.DONE] * 4


class Hosts:
    """Two hosts, `{name}-0` and `{name}-1`; `enter(node)` is the prefix of a command that runs on one."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        self.names = [f"{name}-{node}" for node in (0, 1)]
        for own in self.names:
            ip("netns", "add", own)
            stack.callback(ip, "netns", "delete", own)
            stack.callback(shutil.rmtree, Path("/etc/netns") / own, ignore_errors=True)
        ip("-n", self.names[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", self.names[1])
        for own, address in zip(self.names, ADDRESSES, strict=True):
            ip("-n", own, "address", "add", f"{address}/24", "dev", "eth0")
            for interface in ("lo", "eth0"):
                ip("-n", own, "link", "set", interface, "up")

    def know_each_other(self, *, and_themselves: bool) -> None:
        """Writes the names and addresses; without `and_themselves` a host's own name is a loopback, as on Debian."""
        for own in self.names:
            pairs = zip(self.names, ADDRESSES, strict=True)
            lines = [f"{address if name != own or and_themselves else '127.0.1.1'} {name}" for name, address in pairs]
            (folder := Path("/etc/netns") / own).mkdir(parents=True, exist_ok=True)
            (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def enter(self, node: str) -> list[str]:
        own = self.names[0].removesuffix("0") + node
        return ["ip", "netns", "exec", own, "unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', own]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with ExitStack() as stack:
        try:
            found = Hosts(f"plumb{os.getpid()}", stack)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces are not permitted here: {getattr(error, 'stderr', None) or error}")
        yield found


@pytest.fixture(scope="module")
def meta(tmp_path_factory) -> Path:
    return build_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def one_host(meta, tmp_path_factory) -> str:
    """The digest of the weights of a trial on one host."""
    trial = Trial(meta, tmp_path_factory.mktemp("one"), world=4, training=SHORT)
    assert trial.start().wait(120) == 0
    return trial.record["weights_sha256"]


def start_on(hosts: Hosts, trial: Trial, **variables: str) -> subprocess.Popen:
    """Starts the trial as a job of both hosts, whose first one runs the stage."""
    enter = " ".join(f"'{part}'" for part in hosts.enter("NODE")).replace("NODE'", "'$node")
    return trial.start(hosts.enter("0"), slurm_job(trial.folder / "bin", enter) | variables)


@pytest.mark.parametrize(
    ("and_themselves", "variables"),
    [(True, {}), (False, {"GLOO_SOCKET_IFNAME": "eth0"})],
    ids=["by name", "by interface"],
)
def test_ranks_of_two_hosts_end_with_the_weights_of_one_host(
    hosts, meta, one_host, tmp_path, and_themselves, variables
):
    hosts.know_each_other(and_themselves=and_themselves)
    trial = Trial(meta, tmp_path, world=4, training=SHORT)
    stage = start_on(hosts, trial, **variables)
    _, said = stage.communicate(timeout=120)
    assert stage.returncode == 0, said
    ranks = read(trial.board, 4)
    assert all(one.state is State.DONE and not one.is_here for one in ranks)
    assert len({one.host for one in ranks}) == 2
    assert trial.record["weights_sha256"] == one_host


def test_host_whose_own_name_is_a_loopback_is_told_the_variable_that_names_its_interface(hosts, meta, tmp_path):
    hosts.know_each_other(and_themselves=False)
    trial = Trial(meta, tmp_path, world=2, training=SHORT)
    stage = start_on(hosts, trial)
    family = psutil.Process(stage.pid).children(recursive=True)
    said = ended(stage, family)
    message = r"cannot connect to a rank of another host; set GLOO_SOCKET_IFNAME .*127\.0\.1\.1"
    assert re.search(rf"ERROR rank \d: {message}", said), said


def test_rank_that_dies_on_the_other_host_ends_the_trial_and_leaves_nothing(hosts, meta, tmp_path):
    hosts.know_each_other(and_themselves=True)
    trial = Trial(meta, tmp_path)
    stage = start_on(hosts, trial)
    pids = {rank: wait_for_step(trial, rank) for rank in (0, 1)}
    family = psutil.Process(stage.pid).children(recursive=True)
    (other,) = [rank for rank, pid in pids.items() if hostname(pid) == hosts.names[1]]
    psutil.Process(pids[other]).kill()
    assert "run again to resume" in ended(stage, family)
    assert stage.returncode == 1


def hostname(pid: int) -> str:
    """The name of the host that a process of this machine believes to run on."""
    entered = ["nsenter", "--target", str(pid), "--uts", "uname", "-n"]
    return subprocess.run(entered, check=True, capture_output=True, text=True).stdout.strip()
