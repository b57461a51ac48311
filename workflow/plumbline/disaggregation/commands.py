"""What the runtime adds to the command line: `plumbline worker` and `plumbline worker-key`."""

import logging
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from math import fsum
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Annotated, Any

import typer

from plumbline.core.errors import UserError
from plumbline.core.present.answer import Answer, Row
from plumbline.disaggregation.settings import BLIND, DECODING, FULL, LOCAL, RPC

app = typer.Typer()
SHOWN = (LOCAL, FULL, *BLIND, RPC)
"""The variants that `plumbline show` begins with: between them lies what semantics save."""


@app.command()
def worker(
    key_file: Annotated[Path, typer.Option(help="File with the key that clients must hold; see worker-key.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT to listen on; port 0 takes a free one.")] = "127.0.0.1:7700",
    models: Annotated[Path | None, typer.Option(help="Folder with models that clients may name.")] = None,
    peer: Annotated[list[str] | None, typer.Option(help="HOST:PORT of a worker that values may be sent to.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    weights_gib: Annotated[float, typer.Option(help="The most memory that all models together may take.")] = 8.0,
    session_gib: Annotated[float, typer.Option(help="The most memory that the state of one session may take.")] = 1.0,
    sessions_gib: Annotated[float, typer.Option(help="The most memory that all sessions together may take.")] = 8.0,
    connections: Annotated[int, typer.Option(help="The most connections at a time.")] = 256,
    stall_seconds: Annotated[float, typer.Option(help="How long a peer may take to complete a frame.")] = 10.0,
    spin_seconds: Annotated[float, typer.Option(help="How long a read spins before it sleeps.")] = 0.0,
    stream_seconds: Annotated[float, typer.Option(help="How long streamed tokens may wait for each other.")] = 0.033,
) -> None:
    """Serve language models to clients that hold the key."""
    from plumbline.core.run.device import torch_device
    from plumbline.disaggregation.runtime.models.weights import Store
    from plumbline.disaggregation.runtime.serving.connection import Bounds
    from plumbline.disaggregation.runtime.transport.address import parse_address
    from plumbline.disaggregation.runtime.transport.keys import read_key
    from plumbline.disaggregation.runtime.transport.protocol import Limits
    from plumbline.disaggregation.runtime.worker import Worker

    for option, value, least in (
        ("--weights-gib", weights_gib, 0.0),
        ("--session-gib", session_gib, 0.0),
        ("--sessions-gib", sessions_gib, 0.0),
        ("--connections", connections, 1),
        ("--stall-seconds", stall_seconds, 0.001),
        ("--spin-seconds", spin_seconds, 0.0),
        ("--stream-seconds", stream_seconds, 0.0),
    ):
        if not least <= value < float("inf"):
            raise UserError(f"{option}: {value:g} is not a number of at least {least:g}")
    for address in peer or ():
        parse_address(address)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if models is not None and not models.is_dir():
        raise UserError(f"--models: {models} is not a directory")
    secret = read_key(key_file)
    host, port = parse_address(listen)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UserError(f"--listen: {listen} is not available ({error.strerror}); name another address") from None
    serving = Worker(
        listening,
        secret,
        Store(round(weights_gib * 2**30), torch_device(device), models),
        Limits(stall_seconds=stall_seconds, spin_seconds=spin_seconds, stream_seconds=stream_seconds),
        Bounds(
            connections=connections,
            session_bytes=round(session_gib * 2**30),
            all_sessions_bytes=round(sessions_gib * 2**30),
            peers=tuple(peer or ()),
        ),
    )

    def stop(number: int, frame: FrameType | None) -> None:
        serving.is_stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    typer.echo(f"listening on {host}:{listening.getsockname()[1]}")
    serving.run()


@app.command("worker-key")
def worker_key(path: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Write a new key for workers and their clients.

    Only this user may read the file.
    """
    from plumbline.disaggregation.runtime.transport.keys import write_key

    write_key(path)
    typer.echo(f"{path} written; copy it to where the clients run, over a channel that keeps it secret")


def rows(record: dict[str, Any]) -> list[Row]:
    """What `plumbline show` says of a block: the median milliseconds of a call, of decoding per token and context.

    Of the micro workload a call is all its programs, once each.
    """
    keys = {"workload": record.get("workload", DECODING), "link": record["link"], "block": record["block"]}
    contexts = record.get("contexts") or [{"context": None, "arms": record.get("arms", [])}]
    return [_row(keys | {"context": one["context"]}, one["arms"]) for one in contexts]


def _row(keys: dict[str, Any], arms: list[dict[str, Any]]) -> Row:
    medians = {arm["name"]: 1000 * median(arm["seconds"]) for arm in arms}
    whole = defaultdict[str, float](float)
    for name, value in medians.items():
        whole[name.rpartition("/")[2]] += value
    found = {f"{name}_ms": whole[name] for name in SHOWN if name in whole}
    return Row(keys, found, {f"{name}_ms": value for name, value in (whole | medians).items()})


def order(folder: Path) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """Where `plumbline show` puts a block: decoding first, each workload's blocks on a link together."""
    return lambda record: ("workload" in record, record.get("workload", ""), record["link"], record["block"])


def compare(first: Path, second: Path, threshold: float | None) -> Answer:
    """What differs beyond noise between two results folders, over blocks, which are independent samples.

    Each variant's time over local's and its bytes, how far the cost model is off, and baselines that could not run.
    """
    from plumbline.core.measure.interleave import CONTROL
    from plumbline.core.present.comparing import compared
    from plumbline.core.statistics.before_after import Measured
    from plumbline.disaggregation.analysis.cost import judged, mean_error, rank_correlation
    from plumbline.disaggregation.record import Arm, MeasureRecord
    from plumbline.disaggregation.settings import MICRO, STREAMED
    from plumbline.disaggregation.workload_record import WorkloadArm, WorkloadRecord, over_local

    def one(block: int, unit: str, measure: str, value: float, **how: Any) -> Measured:
        names = {"unit": unit, "measure": measure, "replicate": str(block), "goal": "min", "test_over_train": None}
        return Measured(**{**names, "value": value, **how})

    def of_arms(block: int, place: str, per: str, arms: Sequence[Arm | WorkloadArm]) -> Iterator[Measured]:
        for name, value in over_local(arms).items():
            yield one(block, f"{place} {name}", "time_over_local", value, is_ratio=True)
        variants = defaultdict[str, list[Arm | WorkloadArm]](list)  # of the micro workload, in each of its programs
        for arm in arms:
            variants[arm.name.rpartition("/")[2]].append(arm)
        for name, many in variants.items():
            sent = [arm.bytes_per_token if isinstance(arm, Arm) else arm.bytes for arm in many]
            is_stream = per == "token" and name in STREAMED
            is_count = not is_stream and all(arm.counted_by != "interface" for arm in many)
            if name != CONTROL and None not in sent:
                yield one(block, f"{place} {name}", f"bytes_per_{per}", fsum(filter(None, sent)), is_count=is_count)

    def of_decoding(record: MeasureRecord) -> Iterator[Measured]:
        for part in record.contexts:
            yield from of_arms(record.block, f"{DECODING} {record.link} {part.context}", "token", part.arms)

    def of_graphs(record: WorkloadRecord) -> Iterator[Measured]:
        place = f"{record.workload} {record.link}"
        yield from of_arms(record.block, place, "call", [arm for arm in record.arms if arm.kind == "variant"])
        if record.workload == MICRO and (costs := judged([record])):
            yield one(record.block, place, "cost_model_error", mean_error(costs.predictions))
            yield one(record.block, place, "cost_model_correlation", rank_correlation(costs.predictions), goal="max")

    def baselines(record: MeasureRecord | WorkloadRecord) -> dict[str, str]:
        return dict.fromkeys(record.spec["baselines"], "ok") | dict.fromkeys(record.unavailable, "unavailable")

    return compared(MeasureRecord, of_decoding, (first, second), threshold, {WorkloadRecord: of_graphs}, baselines)
