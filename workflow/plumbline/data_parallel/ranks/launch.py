"""Starting ranks with torchrun, and what comes of them."""

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, write_json
from plumbline.core.run.processes import ChildFault, Member, oom_kill_count, run_group
from plumbline.data_parallel.ranks.board import State, read
from plumbline.data_parallel.ranks.room import node_count
from plumbline.data_parallel.ranks.watch import TORCHRUN_LOG, blame, watch

REQUEST = "request.json"
RESULT = "result.json"
AGENT = "PLUMBLINE_RANKS_PARENT"
"""The variable that tells ranks the process id of the torchrun which started them."""
SEARCHED = Path(__file__).parents[3]
"""Where this package lies: ranks import it from there too."""


def run_ranks(
    module: str, request: dict[str, Any], *, world: int, folder: Path, timeout: float, steps: int | None = None
) -> Any:
    """Runs `module` in `world` processes; what rank 0 hands back with `Rank.answer`.

    request: JSON values that every rank reads. folder: rebuilt here but for its log, which each attempt is appended to;
    it holds the ranks' board, on a file system that all hosts see. A rank that dies, hangs or raises ends them all:
    UserError, OutcomeError or MemoryError with its number. SIGTERM and SIGINT are handed on to the ranks, which stop
    after their step; then KeyboardInterrupt. steps: how many the ranks count to on their board, where their progress is
    to be reported.
    """
    _clear(folder)
    kills = oom_kill_count()
    write_json(folder / REQUEST, request)
    members = [
        Member(
            work=_torchrun(module, world, folder),
            name="torchrun",
            log=folder / TORCHRUN_LOG,
            environment={
                "OMP_NUM_THREADS": "1",
                "OMP_WAIT_POLICY": "PASSIVE",
                "TOKENIZERS_PARALLELISM": "false",
                "PYTHONPATH": os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(SEARCHED)]),
            },
        ),
        Member(work=partial(watch, folder, world, timeout, kills, steps), name="watcher"),
    ]
    with _handing_signals_on(folder, world) as signalled:
        try:
            run_group(members)
        except (ChildFault, UserError) as error:
            if signalled:
                raise KeyboardInterrupt from None
            if isinstance(error, UserError):
                raise
            if "ended by" not in str(error):  # torchrun itself was not killed: it ended because a rank did
                blame(folder, world, kills)
            raise UserError(f"{error}: {_last_line(folder / 'torchrun.log')}") from None
    if signalled or any(one.state is State.INTERRUPTED for one in read(folder, world)):
        raise KeyboardInterrupt
    return read_json(folder / RESULT)


def _torchrun(module: str, world: int, folder: Path) -> list[str]:
    """The command: on one host with a port that the system picks; in a Slurm job of several nodes, one on each."""
    nodes = node_count(world)
    command = [sys.executable, "-m", "plumbline.data_parallel.ranks.torchrun"]
    if nodes == 1:
        return [*command, "--standalone", f"--nproc-per-node={world}", "-m", module, str(folder.resolve())]
    if world % nodes:
        raise UserError(f"{world} ranks do not divide by the {nodes} nodes of this job; change data_parallel.worlds")
    # this process runs on the job's first node, which is where the others meet
    agent = [*command, f"--nnodes={nodes}", f"--nproc-per-node={world // nodes}", "--rdzv-backend=c10d"]
    agent += [
        f"--rdzv-endpoint={os.uname().nodename}:{_free_port()}",
        f"--rdzv-id={os.environ['SLURM_JOB_ID']}-{os.getpid()}",
    ]
    # this process runs in a step of the job, whose CPUs and GPUs the ranks use as well
    return ["srun", "--overlap", "--ntasks-per-node=1", f"--nodes={nodes}", *agent, "-m", module, str(folder.resolve())]


def _clear(folder: Path) -> None:
    """Makes the folder, and removes all of an earlier attempt but its log."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != TORCHRUN_LOG:
            path.unlink()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("", 0))
        return int(listening.getsockname()[1])


@contextmanager
def _handing_signals_on(folder: Path, world: int) -> Iterator[list[int]]:
    """While the block runs, SIGTERM and SIGINT go to the ranks; yields the list of those that came."""
    came: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        ranks = read(folder, world)
        if len(ranks) < world or len(came) > 2:  # nothing to save yet, or asked for the third time
            raise KeyboardInterrupt
        for one in ranks:
            with suppress(ProcessLookupError):
                if one.is_here:
                    os.kill(one.pid, signal.SIGTERM)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()] if path.exists() else []
    return lines[-1].strip() if lines else "it said nothing"
