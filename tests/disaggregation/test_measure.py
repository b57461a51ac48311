"""A block measures real processes, and a wrong token or an impossible link is an outcome."""

import json
import os
import shutil
import socket
import struct
import time
from functools import partial

import pytest
import torch
from pydantic import ValidationError

from plumbline.core.run.processes import Member, run_group
from plumbline.disaggregation import links, measure
from plumbline.disaggregation.record import MeasureRecord
from plumbline.disaggregation.settings import REMOTE, DisaggregationSettings, ModelSettings

TINY = {"vocabulary": 64, "positions": 64, "width": 16, "layers": 2, "heads": 2}
CAN_SHAPE = os.geteuid() == 0 and shutil.which("ip") and shutil.which("tc")


def spec(**changes):
    values = {
        "model": TINY,
        "contexts": [8],
        "tokens": 4,
        "link": "loopback",
        "block": 0,
        "min_rounds": 5,
        "seconds": 0.1,
    }
    values |= {"precision": 0.02, "spin_seconds": 0.0, "seed": 0, "device": "cpu", "code": "", "inputs": ""}
    return measure.MeasureSpec.model_validate(values | changes)


def measured(folder, **changes):
    path = folder / "llm_decode.json"
    measure.measure(spec(**changes), path)
    return MeasureRecord.read(path)


def test_a_block_measures_every_way_between_two_processes_and_counts_as_the_kernel_does(tmp_path):
    record = measured(tmp_path)
    (context,) = record.contexts
    assert [arm.name for arm in context.arms] == ["local", "control", "generate", *REMOTE]
    assert len({record.worker_pid, record.client_pid, os.getpid()}) == 3
    assert record.protocol_bytes == record.kernel_bytes > 0
    rounds = {len(arm.seconds) for arm in context.arms}
    assert len(rounds) == 1
    cost = {arm.name: arm.bytes_per_token for arm in context.arms if arm.name in REMOTE}
    assert sorted(cost, key=cost.get) == list(REMOTE)
    assert {arm.name for arm in context.arms if arm.bytes_per_token is None} == {"local", "control", "generate"}


def test_other_tokens_are_the_outcome_invalid_output(tmp_path, monkeypatch):
    real = measure.Session.decode

    def off_by_one(self, tokens):
        answer = real(self, tokens)
        return type(answer)(tokens=(answer.tokens + 1) % 64)

    monkeypatch.setattr(measure.Session, "decode", off_by_one)
    record = measured(tmp_path)
    assert (record.outcome, record.contexts) == ("invalid_output", [])
    assert "generates other tokens than transformers does locally" in record.message


def test_a_link_that_cannot_be_made_is_unavailable_and_not_loopback(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    record = measured(tmp_path, link="1gbit")
    assert record.outcome == "unavailable"
    assert "a link of 1gbit cannot be made here" in record.message
    assert json.loads((tmp_path / "llm_decode.json").read_text())["contexts"] == []


@pytest.mark.skipif(not CAN_SHAPE, reason="needs root, ip and tc")
def test_a_shaped_link_is_no_faster_than_its_rate_and_leaves_no_interface(tmp_path):
    wide = {"vocabulary": 64, "positions": 256, "width": 256, "layers": 4, "heads": 4}
    record = measured(tmp_path, link="1gbit", model=wide, contexts=[200], seconds=0.5)
    assert record.ok, record.message
    arms = {arm.name: arm for arm in record.contexts[0].arms}
    shipped = arms["no_semantics"]
    assert min(shipped.seconds) >= 0.8 * 8 * shipped.bytes_per_token / 1e9  # a burst may pass at once
    assert not any(name.startswith("plumb") for _, name in links.socket.if_nameindex())


@pytest.mark.skipif(not CAN_SHAPE, reason="needs root, ip and tc")
def test_what_a_step_sends_after_a_pause_takes_as_long_as_the_rate_says():
    """150,000 bytes, as a step with keys and values has them: less than a large bucket would let through at once."""
    size, repeats = 150_000, 9
    between = links.Network("1gbit", None, os.getpid() % 10_000)
    members = [
        Member(work=partial(swallow, between, size * repeats), name="worker"),
        Member(work=partial(seconds_of_each, between, size, repeats), name="client"),
    ]
    _, found = run_group(members)
    assert min(found["seconds"]) >= 0.8 * 8 * size / 1e9


def swallow(between, size):
    """Takes so many bytes, and answers each packet's worth with how many came."""
    with between.worker_end() as listening:
        connection, _ = listening.accept()
        while size:
            received = len(connection.recv(min(1 << 20, size)))
            size -= received
            connection.sendall(struct.pack("<I", received))
    return {}


def seconds_of_each(between, size, repeats):
    """How long each message took until the other end had it, after a pause of 3 ms."""
    between.client_end()
    host, port = between.address.split(":")
    deadline, seconds = time.monotonic() + 10, []
    while True:
        try:
            connection = socket.create_connection((host, int(port)), timeout=10)
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    for _ in range(repeats):
        time.sleep(0.003)
        began, left = time.perf_counter(), size
        connection.sendall(bytes(size))
        while left:
            left -= struct.unpack("<I", connection.recv(4, socket.MSG_WAITALL))[0]
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds}


def test_local_tokens_are_those_of_transformers():
    config = measure.config_of(ModelSettings.model_validate(TINY))
    model, prompt = measure.build(config, "float32", 3), torch.arange(8)[None]
    expected = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, do_sample=False)
    assert torch.equal(measure.local_tokens(measure.Held(model, "", 0), prompt, 6), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"contexts": [600], "tokens": 16}, "need 616 positions, above model.positions"),
        ({"contexts": []}, "is empty; name at least one"),
        ({"links": ["loopback", "loopback"]}, "is named twice"),
        ({"model": {"heads": 3}}, "3 does not divide width 128"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        DisaggregationSettings.model_validate(values)
