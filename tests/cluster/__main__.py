"""Runs the tiny studies, trials that share jobs, and a sweep that loses a job, on a Slurm cluster of two nodes on this
host: `make test-cluster`; `python -m tests.cluster sweep` runs one of CHECKS.

Needs root on a Debian machine; Slurm and munge are installed if they are absent. The cluster has a key, a state folder
and ports of its own. Slurm's commands read one file only once they are inside a job, /etc/slurm/slurm.conf, so that is
where its configuration goes; it is taken away at the end, and one that is not from here is never touched.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.house import PROJECT, TINY, House, build, comparable, contents, kill_group

from plumbline import config as configuration

CONFIGURATION = Path("/etc/slurm/slurm.conf")
MARK = "# Written by Plumbline's `make test-cluster`, and taken away when it ends.\n"
PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
CONTROLLER_PORT = 17817
NODES = {"plumb1": 17818, "plumb2": 17819}
OPTIONS = ("--slurm-status-command=squeue", "--slurm-init-seconds-before-status-checks=5")
"""Over the profile: this cluster keeps no accounts, and its jobs are short."""
TEMPLATE = """\
ClusterName=plumbline
SlurmctldHost={host}({address})
SlurmctldPort={controller_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MinJobAge=3600
KillWait=5
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# The nodes have the memory that profiles/slurm asks for, whether the host does or not.
SlurmdParameters=config_overrides
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


RANKS = re.compile(r"^  # (data_parallel_\w+: |  nodes: 2|  gres: \"gpu:8\").*$", flags=re.MULTILINE)
"""The lines of the profile that one uncomments to train on several nodes."""


class ClusterHouse(House):
    """A house whose jobs go to Slurm; runs the target `all`, as its study is none of the others."""

    longest_seconds = 2400  # each job starts Snakemake

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        profile = root / "profiles/slurm/config.yaml"
        text, count = RANKS.subn(lambda line: line[0].replace("# ", "", 1), profile.read_text())
        assert count == 5, "the profile's lines for several nodes have changed"
        profile.write_text(text.replace('gres: "gpu:8" # on CPUs, `tasks: 2` instead', "tasks: 2"))

    def command(self, *arguments: str) -> list[str]:
        options = ("--profile", "profiles/slurm", *OPTIONS)
        return [sys.executable, "-m", "snakemake", *options, *arguments, "--configfile", "tiny.yaml"]


def check_machine() -> None:
    """Exits with one line where the cluster cannot be set up."""
    if os.geteuid() != 0:
        sys.exit("make test-cluster: needs root, to start the daemons of a Slurm cluster")
    if CONFIGURATION.exists() and not CONFIGURATION.read_text().startswith(MARK):
        sys.exit(f"make test-cluster: {CONFIGURATION} is not from this test; run it on a machine without Slurm")
    for port in (CONTROLLER_PORT, *NODES.values()):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                sys.exit(f"make test-cluster: port {port} is in use; is another `make test-cluster` running?")


def install() -> None:
    if all(map(shutil.which, PROGRAMS)):
        return
    if not shutil.which("apt-get"):
        sys.exit("make test-cluster: needs Slurm and munge; without apt-get, install them first")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    packages = ("install", "--yes", "--quiet", "--no-install-recommends", "slurm-wlm", "munge")
    for arguments in (("update", "--quiet"), packages):
        subprocess.run(("apt-get", *arguments), env=environment, check=True)


def wait_for(what: str, ready: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            sys.exit(f"make test-cluster: not within {seconds:.0f} s: {what}")
        time.sleep(0.2)


def slurm(*command: str) -> str:
    """What a Slurm command prints; nothing where it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout


def start(stack: ExitStack, log: Path, *command: str) -> None:
    """Starts a program that runs in the foreground, in a session of its own; it ends with the stack."""
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
    stack.callback(stop, process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Two nodes that take jobs, until the block ends. Their state and logs go to `folder`."""
    host = socket.gethostname().partition(".")[0]
    address = socket.gethostbyname(host)
    cpus = max(1, (os.cpu_count() or 1) // len(NODES))
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr={address} Port={port} CPUs={cpus} RealMemory=16000"
        for name, port in NODES.items()
    ]
    text = TEMPLATE.format(
        host=host, address=address, controller_port=CONTROLLER_PORT, folder=folder, nodes="\n".join(nodes)
    )
    (folder / "state").mkdir()
    subprocess.run(("mungekey", "--create", f"--keyfile={folder}/munge.key"), check=True)
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    with ExitStack() as stack:
        stack.callback(CONFIGURATION.unlink, missing_ok=True)
        CONFIGURATION.write_text(MARK + text)
        start(stack, folder / "munged.log", "munged", "--foreground", f"--socket={folder}/munge.socket", *files)
        wait_for("munged answers", (folder / "munge.socket").exists)
        start(stack, folder / "slurmctld.log", "slurmctld", "-D")
        for node in NODES:
            start(stack, folder / f"{node}.log", "slurmd", "-D", "-N", node)
        wait_for("all nodes are idle", lambda: slurm("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * len(NODES))
        stack.callback(end_jobs)
        yield


def end_jobs() -> None:
    """Jobs outlive the daemons of their nodes, so they end first."""
    slurm("scancel", "--user=root")
    wait_for("all jobs have ended", lambda: not slurm("squeue", "-h", "-t", "PENDING,RUNNING,COMPLETING").strip())


def slurm_jobs() -> list[dict[str, str]]:
    """Every job that the cluster remembers, by field."""
    jobs = slurm("scontrol", "show", "jobs", "--oneliner").splitlines()
    return [dict(re.findall(r"(\w+)=(\S*)", job)) for job in jobs if job.startswith("JobId=")]


def measuring_rules() -> list[str]:
    """Rules that ask for the whole machine."""
    text = "".join(path.read_text() for path in (PROJECT / "workflow" / "rules").glob("*.smk"))
    rules = re.split(r"^(?:rule|checkpoint) (\w+):$", text, flags=re.MULTILINE)
    return [name for name, body in zip(rules[1::2], rules[2::2], strict=True) if "threads: WHOLE_MACHINE" in body]


def check_studies(house: House, local: House) -> None:
    """The studies run as Slurm jobs, each once; `ablation` ends with what a local run ends with."""
    expected = house.waiting()
    assert expected.pop("report"), "runs where Snakemake does"
    began = time.monotonic()
    house.snakemake()
    jobs = slurm_jobs()
    print(f"ran {len(jobs)} jobs on the cluster in {time.monotonic() - began:.0f} s", flush=True)

    names = Counter(job["Comment"] for job in jobs)
    assert max(names.values()) == 1, f"ran more than once: {names.most_common(3)}"
    ran = Counter(re.sub("^rule_|_wildcards_.*", "", name) for name in names)
    assert not expected - ran, f"Slurm did not run {expected - ran}"
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}, jobs
    assert {job["BatchHost"] for job in jobs} == set(NODES), "a node ran nothing"
    shared = {job["Comment"] for job in jobs if job["OverSubscribe"] != "NO"}
    for rule in measuring_rules():
        alone = {name for name in names if name.startswith(f"rule_{rule}")}
        assert alone or rule == "throughput_max_batch", f"{rule} did not run"
        assert alone.isdisjoint(shared), f"{rule} shared its node"
    assert shared, "no job shares its node"
    nodes = {
        job["Comment"]: job["NumNodes"] for job in jobs if re.search("data_parallel_(train|eq|comp)", job["Comment"])
    }
    assert set(nodes.values()) == {"2"}, f"not on two nodes: {nodes}"

    plan = configuration.load([house.root / "config.yaml", house.root / "tiny.yaml"]).plan()
    for target in (target for target in plan if target.is_trial and not target.optional):
        record = json.loads(target.file(house.root / "results").read_text())
        assert record["outcome"] == "ok", record
    assert "Nothing to be done" in house.snakemake()
    assert len(slurm_jobs()) == len(jobs), "the second run submitted jobs"
    print("every trial has its record; a second run has nothing to do", flush=True)

    local.snakemake()
    here, there = contents(local), contents(house)
    assert here.keys() == there.keys(), here.keys() ^ there.keys()
    different = [path for path in here if here[path] != there[path]]
    assert not different, f"differs between cluster and local run: {', '.join(different)}"
    print(f"{len(here)} records, feature files and adapter blocks are those of a local run", flush=True)


BATCHES = {"ablation_train": 3, "disaggregation_measure": 1, "disaggregation_measure_graphs": 1}
"""Rule for one target -> how many batches its targets come in, four trials or eight blocks a job."""
BATCHED = tuple({rule.partition("_")[0] for rule in BATCHES})


def with_batches(trials: int, blocks: int) -> dict[str, dict[str, object]]:
    """The tiny studies, with so many trials and blocks a job."""
    shared = {"ablation": {"trials_per_job": trials}, "disaggregation": {"blocks_per_job": blocks}}
    return {study: settings | shared.get(study, {}) for study, settings in TINY.items()}


def check_batches(folder: Path) -> None:
    """Trials share jobs, which get what the profile says of one; a change of how many share a job submits nothing."""
    house, local = ClusterHouse(build(folder / "batched").root), build(folder / "batched-local")
    house.configure(with_batches(4, 8))
    known = {job["JobId"] for job in slurm_jobs()}
    house.snakemake(*BATCHED)
    jobs = {
        re.sub("^rule_|_wildcards_.*", "", job["Comment"]): job for job in slurm_jobs() if job["JobId"] not in known
    }
    for rule, count in BATCHES.items():
        made = {name for name in jobs if re.fullmatch(rf"{rule}(_\d+)?", name)}
        assert made == {f"{rule}_{number}" for number in range(count)}, made
    assert {job["JobState"] for job in jobs.values()} == {"COMPLETED"}, jobs
    for name, job in jobs.items():
        assert (job["MinMemoryNode"] == "16000M") == name.startswith("ablation_train_"), job
        assert (job["OverSubscribe"] == "NO") == name.startswith("disaggregation_measure"), job
    print(f"{sum(BATCHES.values())} jobs of several trials each got the memory or the node of one", flush=True)

    submitted = len(slurm_jobs())
    for trials, blocks in ((1, 1), (12, 8), (3, 2)):
        house.configure(with_batches(trials, blocks))
        assert "Nothing to be done" in house.snakemake(*BATCHED)
    assert len(slurm_jobs()) == submitted, "another number of trials a job submitted jobs"
    local.snakemake()
    assert contents(house) == contents(local), "differs between cluster and local run"
    print("no other number of trials a job runs one again; the records are those of a local run", flush=True)


SLOW, SLOW_COMMENT = "2/0", "_quadratic_noise=0.1__x=2_0"
"""x and seed of the trial whose first attempt waits, and what the comment of its job ends with."""


def sweep_that_waits_once(seconds: int) -> dict[str, object]:
    """A sweep of the shell example; each attempt of a trial leaves a line in its folder, and one attempt waits."""
    is_other = f"test {{x}}/{{seed}} != {SLOW} || test -e {{folder}}/waited"
    wait = f"touch {{folder}}/waited; sleep {seconds}"
    command = f"echo begun >> {{folder}}/attempts; {is_other} || {{{{ {wait}; }}}}; "
    command += TINY["sweep"]["quadratic"]["command"]
    grid = {"x": [1, 2], "noise": [0.1]}
    return TINY["sweep"]["quadratic"] | {"command": command, "grid": grid, "seeds": [0, 1]}


def check_sweep(folder: Path) -> None:
    """A job of a sweep is cancelled: the others go on, and the next run repeats it alone, in its folder."""
    house, local = ClusterHouse(build(folder / "swept").root), build(folder / "swept-local", "sweep")
    for one, seconds in ((house, 300), (local, 0)):
        one.configure({"sweep": {"digits_mlp": None, "quadratic": sweep_that_waits_once(seconds)}})
    swept = house.root / "results" / "sweep" / "quadratic"
    waited = swept / "runs" / "noise=0.1__x=2" / "seed0" / "waited"
    process = house.start("sweep")
    try:
        wait_for(
            "the slow trial has begun, the others have ended", lambda: waited.exists() and len(trials(swept)) == 3, 180
        )
        (slow,) = [
            job for job in slurm_jobs() if job["Comment"].endswith(SLOW_COMMENT) and job["JobState"] == "RUNNING"
        ]
        slurm("scancel", slow["JobId"])
        assert process.wait(120) != 0, "a cancelled job went unnoticed"
    finally:
        if process.poll() is None:
            kill_group(process)
    assert len(trials(swept)) == 3
    assert not (swept / "results.json").exists(), "a summary without one of its trials"
    said = house.plumbline("status", "--study", "sweep", "--configfile", "tiny.yaml")
    assert "missing sweep/run/quadratic/noise=0.1__x=2/0: interrupted" in said, said
    print("a cancelled job failed alone; three trials have their records", flush=True)

    known = {job["JobId"] for job in slurm_jobs()}
    house.snakemake("sweep")
    again = Counter(re.sub("_wildcards_.*", "", job["Comment"]) for job in slurm_jobs() if job["JobId"] not in known)
    assert again["rule_sweep_run"] == 1, f"ran again: {again}"
    attempts = {path.parent: path.read_text().count("begun") for path in swept.glob("runs/*/seed*/attempts")}
    assert attempts.pop(waited.parent) == 2, "did not go on in its folder"
    assert set(attempts.values()) == {1}, attempts
    assert "Nothing to be done" in house.snakemake("sweep")

    local.snakemake()
    here, there = trials(local.study / "quadratic"), trials(swept)
    assert here == there, "differs between cluster and local run"
    print("the next run repeated it alone, in its folder; the records are those of a local run", flush=True)


def trials(sweep: Path) -> dict[str, object]:
    """What each trial found: a record without its spec, and without what time and machine put into it."""
    records = {str(path.relative_to(sweep)): json.loads(path.read_text()) for path in sweep.glob("trials/*/*.json")}
    return {name: {**comparable(record), "spec": None} for name, record in records.items()}


CHECKS = ("studies", "batches", "sweep")


def main() -> None:
    asked = sys.argv[1:] or CHECKS
    if unknown := set(asked) - set(CHECKS):
        sys.exit(f"tests.cluster: no check {', '.join(unknown)}; choose from {', '.join(CHECKS)}")
    check_machine()
    install()
    os.environ["OMP_NUM_THREADS"] = "1"  # sums over several threads have other bits
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("make test-cluster: terminated"))
    folder = Path(tempfile.mkdtemp(prefix="plumbline-cluster-"))
    folder.chmod(0o755)  # munged wants its socket where anyone may go
    print(f"two nodes on {socket.gethostname()}, everything in {folder}", flush=True)
    with cluster(folder):
        if "studies" in asked:
            check_studies(ClusterHouse(build(folder / "cluster").root), build(folder / "local"))
        if "batches" in asked:
            check_batches(folder)
        if "sweep" in asked:
            check_sweep(folder)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
