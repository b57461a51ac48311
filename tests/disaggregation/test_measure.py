"""A block measures real processes, and a wrong token or an impossible link is an outcome."""

import importlib.util
import json
import os
import shutil
import socket
import struct
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from disaggregation.interfaces import are_gone
from plumbline.core.run.processes import Member, run_group
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.disaggregation import measure
from plumbline.disaggregation.baselines import ray_actor
from plumbline.disaggregation.blocks import links, variants
from plumbline.disaggregation.record import MeasureRecord
from plumbline.disaggregation.runtime.models.session import Session
from plumbline.disaggregation.runtime.transport.protocol import OVERHEAD_BYTES
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
    values |= {
        "baselines": [],
        "precision": 0.02,
        "spin_seconds": 0.0,
        "stream_seconds": 0.005,
        "seed": 0,
        "device": "cpu",
        "code": "",
        "inputs": "",
    }
    return measure.MeasureSpec.model_validate(values | changes)


def measured(folder, **changes):
    path = folder / "llm_decode.json"
    measure.measure(spec(**changes), path)
    return MeasureRecord.read(path)


def test_a_block_measures_every_variant_between_processes_of_their_own_and_counts_as_the_kernel_does(tmp_path):
    record = measured(tmp_path, baselines=["capture_only", "rpc"])
    assert record.ok, record.message
    (context,) = record.contexts
    assert [arm.name for arm in context.arms] == ["local", "control", "generate", *REMOTE, "capture_only", "rpc"]
    assert len({record.worker_pid, record.client_pid, record.rpc_pid, os.getpid()}) == 4
    assert record.owner_pids == {"rpc": record.rpc_pid}
    assert record.capture_seconds > 0
    assert record.captured_operations > 20
    assert record.protocol_bytes == record.kernel_bytes > 0
    rounds = {len(arm.seconds) for arm in context.arms}
    assert len(rounds) == 1
    cost = {arm.name: arm.bytes_per_token for arm in context.arms if arm.name in REMOTE}
    frames = OVERHEAD_BYTES * (spec().tokens - 1) / spec().tokens  # how many tokens go in one depends on their time
    assert max(abs(cost[name] - cost["full"]) for name in ("no_last_logits", "no_phase")) <= frames
    more = ["full", "no_stream", "no_server_sampling", "remote", "no_state_resident", "no_semantics"]
    assert sorted(more, key=cost.get) == more
    assert cost["no_weights_resident"] * 4 > record.parameters * 4
    arms = {arm.name: arm for arm in context.arms}
    assert {name for name, arm in arms.items() if arm.bytes_per_token is None} == set(arms) - set(REMOTE)
    assert arms["rpc"].round_trips_per_token == arms["no_server_sampling"].round_trips_per_token * 4 / 5  # no FREE


def test_streamed_tokens_wait_for_each_other_as_long_as_the_setting_says(tmp_path):
    """Of four tokens three are streamed: each in a frame of its own, or all in one."""
    cost = []
    for seconds in (0.0, 60.0):
        record = measured(tmp_path, stream_seconds=seconds)
        assert record.ok, record.message
        assert record.spec["stream_seconds"] == seconds
        cost += [arm.bytes_per_token for arm in record.contexts[0].arms if arm.name == "full"]
    assert cost[0] - cost[1] == 2 * OVERHEAD_BYTES / 4


def test_other_tokens_are_the_outcome_invalid_output(tmp_path, monkeypatch):
    real = Session.decode

    def off_by_one(self, tokens):
        answer = real(self, tokens)
        return type(answer)(tokens=(answer.tokens + 1) % 64)

    monkeypatch.setattr(Session, "decode", off_by_one)
    record = measured(tmp_path)
    assert (record.outcome, record.contexts) == ("invalid_output", [])
    assert "generates other tokens than transformers does locally" in record.message


def test_a_link_that_cannot_be_made_is_unavailable_and_not_loopback(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    record = measured(tmp_path, link="1gbit")
    assert record.outcome == "unavailable"
    assert "a link of 1gbit cannot be made here" in record.message
    assert json.loads((tmp_path / "llm_decode.json").read_text())["contexts"] == []


@pytest.mark.parametrize("link", ["loopback", "1gbit"])
def test_a_block_that_fails_leaves_no_socket_and_no_pipe_open(tmp_path, monkeypatch, link):
    def fails(*args):
        raise OutcomeError(Outcome.UNAVAILABLE, "no worker")

    made = []
    monkeypatch.setattr(measure, "serve", fails)
    monkeypatch.setattr(measure, "network", lambda link: made.append(links.network(link)) or made[-1])
    before = set(Path("/proc/self/fd").iterdir())
    assert measured(tmp_path, link=link).message == "no worker"
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert made[0].listening is None or made[0].listening.fileno() == -1


@pytest.mark.skipif(not CAN_SHAPE, reason="needs root, ip and tc")
def test_a_shaped_link_is_no_faster_than_its_rate_and_leaves_no_interface(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(measure, "network", lambda link: made.append(links.network(link)) or made[-1])
    wide = {"vocabulary": 64, "positions": 256, "width": 256, "layers": 4, "heads": 4}
    record = measured(tmp_path, link="1gbit", model=wide, contexts=[200], seconds=0.5, baselines=["rpc"])
    assert record.ok, record.message
    arms = {arm.name: arm for arm in record.contexts[0].arms}
    assert (arms["rpc"].counted_by, arms["full"].counted_by) == ("interface", "protocol")
    assert arms["rpc"].bytes_per_token > 200 * 8 / 4  # the prompt alone, over four tokens
    shipped = arms["no_semantics"]
    assert min(shipped.seconds) >= 0.8 * 8 * shipped.bytes_per_token / 1e9  # a burst may pass at once
    assert made
    assert are_gone(one.client_interface for one in made)


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
    local = variants.here(measure.Held(model, "", 0))["local"]
    assert torch.equal(local.generate(prompt, 6, variants.Clock()), expected)


def test_a_captured_step_decodes_as_transformers_does_at_every_length():
    config = measure.config_of(ModelSettings.model_validate(TINY))
    held, prompt = measure.Held(measure.build(config, "float32", 3), "", 0), torch.arange(20)[None]
    expected = held.model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False)
    variant, cost = variants.captured(held)
    assert torch.equal(variant.generate(prompt, 12, variants.Clock()), expected)
    assert torch.equal(variant.generate(prompt[:, :3], 4, variants.Clock())[:, :3], prompt[:, :3])
    assert cost["capture_seconds"] > 0


def test_a_turn_ends_with_its_last_token_not_with_what_is_cleared_away_afterwards():
    def generate(prompt, tokens, streamer):
        streamer.put(prompt)
        time.sleep(0.2)
        return prompt

    prompt = torch.arange(4)[None]
    began = time.perf_counter()
    seconds = variants.Variant(generate=generate).seconds("one", prompt, prompt)
    assert time.perf_counter() - began - seconds >= 0.2


def test_ray_is_unavailable_with_its_reason_where_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_actor, "find_spec", lambda name: None)
    record = measured(tmp_path, baselines=["ray"])
    assert record.ok, record.message
    assert record.unavailable == {"ray": "the package ray is not installed; pip install 'plumbline[ray]'"}
    assert "ray" not in {arm.name for arm in record.contexts[0].arms}


HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.mark.skipif(not HAS_RAY, reason="needs the extra ray")
def test_actors_of_ray_compute_in_processes_of_their_own_and_no_one_counts_their_bytes_on_loopback(tmp_path):
    record = measured(tmp_path, baselines=["ray", "ray_compiled"])
    assert record.ok, record.message
    assert len({*record.owner_pids.values(), record.worker_pid, record.client_pid, os.getpid()}) == 5
    arms = {arm.name: arm for arm in record.contexts[0].arms}
    for name in ("ray", "ray_compiled"):
        assert (arms[name].bytes_per_token, arms[name].counted_by, arms[name].round_trips_per_token) == (None, None, 1)


@pytest.mark.skipif(not (HAS_RAY and CAN_SHAPE), reason="needs the extra ray, root, ip and tc")
def test_actors_of_ray_are_at_the_other_end_of_a_shaped_link_and_its_interface_counts_their_bytes(tmp_path):
    record = measured(tmp_path, baselines=["rpc", "ray", "ray_compiled"], link="1gbit")
    assert record.ok, record.message
    assert len({*record.owner_pids.values(), record.worker_pid, record.client_pid, os.getpid()}) == 6
    arms = {arm.name: arm for arm in record.contexts[0].arms}
    for name in ("rpc", "ray", "ray_compiled"):
        assert arms[name].counted_by == "interface"
        assert arms[name].bytes_per_token > 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"contexts": [600], "tokens": 16}, "need 616 positions, above model.positions"),
        ({"contexts": []}, "is empty; name at least one"),
        ({"baselines": ["rpc", "rpc"]}, "'rpc' is named twice"),
        ({"links": ["loopback", "loopback"]}, "is named twice"),
        ({"model": {"heads": 3}}, "3 does not divide width 128"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        DisaggregationSettings.model_validate(values)
