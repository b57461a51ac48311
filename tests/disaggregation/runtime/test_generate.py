"""A model on a worker generates the tokens that transformers' `generate` gives here."""

import multiprocessing
import signal
import socket
import struct
import threading
import time
from functools import partial

import pytest
import torch
import transformers

from disaggregation.runtime.pairs import SECRET
from disaggregation.runtime.workers import CONFIGS, GPT2, forked_worker
from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime import client as client_module
from plumbline.disaggregation.runtime.asked import seeded
from plumbline.disaggregation.runtime.client import connect
from plumbline.disaggregation.runtime.generation import MODES, Request, WorkerLostError, _prefill
from plumbline.disaggregation.runtime.models import weights
from plumbline.disaggregation.runtime.models.sampling import Sampling
from plumbline.disaggregation.runtime.models.session import Session
from plumbline.disaggregation.runtime.models.weights import Held, RefusedError, Store, build, held_bytes, skeleton
from plumbline.disaggregation.runtime.transport.meter import settled
from plumbline.disaggregation.runtime.transport.protocol import (
    DECODE,
    EVERY_POSITION,
    MOST_ROWS,
    NO_PHASE,
    SHIPS_STATE,
    Limits,
    Op,
    Reply,
    json_bytes,
)
from plumbline.disaggregation.runtime.transport.remote import ClosedError, Remote, RequestRefusedError
from plumbline.disaggregation.settings import REMOTE, STREAMED

PROMPT = torch.tensor([[5, 17, 3, 42, 8], [9, 9, 30, 1, 77]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
NEW = 12


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "worker.key"
    path.write_text(SECRET.hex())
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    build(CONFIGS["llama"], "float32", 3).save_pretrained(folder / "mine")
    return folder


@pytest.fixture(scope="module")
def address(saved):
    with forked_worker(folder=saved) as worker:
        yield worker.address


@pytest.fixture
def client(address, key):
    with connect(address, key) as client:
        yield client


def local(model, prompt, *, seed=0, mask=None, **more):
    """What transformers gives."""
    torch.manual_seed(seed)
    mask = torch.ones_like(prompt) if mask is None else mask
    return model.generate(prompt, attention_mask=mask, max_new_tokens=more.pop("new", NEW), **more)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", CONFIGS)
def test_tokens_equal_transformers_greedy_sampled_and_padded(client, shape, dtype):
    model = build(CONFIGS[shape], dtype, 7)
    remote = client.seeded(CONFIGS[shape], dtype, 7)
    none = {"eos_token_id": []}
    greedy = local(model, PROMPT, do_sample=False, eos_token_id=None)
    assert torch.equal(remote.generate(PROMPT, max_new_tokens=NEW, **none), greedy)
    padded = local(model, PROMPT, mask=MASK, do_sample=False, eos_token_id=None)
    assert torch.equal(remote.generate(PROMPT, max_new_tokens=NEW, attention_mask=MASK, **none), padded)
    assert not torch.equal(padded, greedy)
    how = {"do_sample": True, "temperature": 0.8, "top_k": 20}
    sampled = local(model, PROMPT, seed=11, eos_token_id=None, **how)
    for mode in MODES:
        if shape != "mistral" or MODES[mode].reply not in SHIPS_STATE:
            assert torch.equal(remote.generate(PROMPT, max_new_tokens=NEW, seed=11, mode=mode, **how, **none), sampled)
    assert not torch.equal(sampled, greedy)
    remote.free()


@pytest.mark.parametrize("mode", ["stream", "step", "logits", "positions", "phaseless", "carried"])
def test_rows_that_end_are_padded_and_all_ended_rows_end_early(client, mode):
    model = build(CONFIGS["llama"], "float32", 7)
    remote = client.seeded(CONFIGS["llama"], "float32", 7)
    free = local(model, PROMPT, do_sample=False, eos_token_id=None)[:, PROMPT.shape[1] :]
    ends = [int(free[0, 2]), int(free[1, 5])]
    expected = local(model, PROMPT, do_sample=False, eos_token_id=ends, pad_token_id=0)
    assert expected.shape[1] < PROMPT.shape[1] + NEW
    found = remote.generate(PROMPT, max_new_tokens=NEW, eos_token_id=ends, pad_token_id=0, mode=mode)
    assert torch.equal(found, expected)
    first = [int(free[0, 0]), int(free[1, 0])]
    once = remote.generate(PROMPT, max_new_tokens=NEW, eos_token_id=first, mode=mode)
    assert once.shape[1] == PROMPT.shape[1] + 1


def test_an_uploaded_model_and_one_in_the_workers_folder_generate_alike(client, saved):
    model = transformers.AutoModelForCausalLM.from_pretrained(saved / "mine")
    expected = local(model, PROMPT, do_sample=False)
    for remote in (client.upload(model), client.folder("mine")):
        assert torch.equal(remote.generate(PROMPT, max_new_tokens=NEW), expected)


def test_weights_are_held_once_for_sessions_of_the_same_content_and_sent_once(address, key, saved):
    model = build(CONFIGS["qwen2"], "float32", 21)
    size = held_bytes(model)
    with connect(address, key) as first, connect(address, key) as second, connect(address, key) as third:
        before = first.remote.stats()["weights_bytes"]
        one, two, three = first.upload(model), second.upload(model), third.seeded(CONFIGS["qwen2"], "float32", 21)
        assert one.content == two.content == three.content
        assert first.remote.stats()["weights"][one.content] == 3
        assert first.remote.stats()["weights_bytes"] - before <= size
        assert first.remote.wire.meter.sent_bytes > size
        assert second.remote.wire.meter.sent_bytes < 5000
    with connect(address, key) as fourth:
        assert fourth.remote.stats()["weights_bytes"] == before


def test_a_tied_head_is_sent_once(client):
    model = build(GPT2, "float32", 5)
    remote = client.upload(model)
    assert client.remote.wire.meter.sent_bytes < 1.2 * sum(one.nbytes for one in model.parameters())
    assert torch.equal(remote.generate(PROMPT, max_new_tokens=NEW), local(model, PROMPT, do_sample=False))


@pytest.mark.parametrize("mode", ["stream", "step"])
def test_a_streamer_sees_the_prompt_and_each_token_as_it_comes(client, mode):
    seen, ended = [], []

    class Streamer:
        def put(self, value):
            seen.append(value.clone())

        def end(self):
            ended.append(len(seen))

    remote = client.seeded(GPT2, "float32", 7)
    found = remote.generate(PROMPT[:1], max_new_tokens=NEW, eos_token_id=[], streamer=Streamer(), mode=mode)
    assert torch.equal(torch.cat([seen[0], *(one[None] for one in seen[1:])], 1), found)
    assert ended == [NEW + 1]


def test_an_error_in_a_streamer_ends_the_session_and_the_connection_goes_on(client):
    class Failing:
        def put(self, value):
            if value.ndim == 1:
                raise ZeroDivisionError

    remote = client.seeded(GPT2, "float32", 7)
    with pytest.raises(ZeroDivisionError):
        remote.generate(PROMPT, max_new_tokens=100, eos_token_id=[], streamer=Failing())
    assert client.remote.stats()["sessions"] == {}
    assert remote.generate(PROMPT, max_new_tokens=2, eos_token_id=[]).shape == (2, 7)


def test_what_a_user_mistypes_is_one_line_with_the_choices(client, key, address):
    remote = client.seeded(GPT2, "float32", 7)
    with pytest.raises(UserError, match=r"mode: 'no_stream' does not exist; choose from stream, step"):
        remote.generate(PROMPT, max_new_tokens=2, mode="no_stream")
    for prompt in (torch.rand(1, 3), [1, 2, 3]):
        with pytest.raises(UserError, match="prompt: is not a tensor of token ids"):
            remote.generate(prompt, max_new_tokens=2)
    with pytest.raises(UserError, match=r"recover: 'linage' does not exist; choose from none, lineage"):
        connect(address, key, recover="linage")
    with pytest.raises(UserError, match="names no worker's address"):
        connect([], key)


def bytes_of(client, steps, mode):
    """Both ways, of a generation for one prompt."""
    meter = client.remote.wire.meter
    before = meter.sent_bytes + meter.received_bytes
    client.seeded(GPT2, "float32", 7).generate(PROMPT[:1], max_new_tokens=steps, eos_token_id=[], mode=mode)
    return meter.sent_bytes + meter.received_bytes - before


def test_bytes_of_a_token_are_76_asked_for_and_36_streamed_each_at_once(key):
    with forked_worker(stream_seconds=0.0) as worker, connect(worker.address, key) as client:
        spent = {(mode, steps): bytes_of(client, steps, mode) for mode in ("step", "stream") for steps in (10, 60)}
    assert (spent["step", 60] - spent["step", 10]) / 50 == 76
    assert (spent["stream", 60] - spent["stream", 10]) / 50 == 36


def test_tokens_that_wait_for_each_other_go_in_one_frame_and_are_the_same(key):
    """Beside the first, which nothing holds up, all go in one frame: each takes 4 bytes more."""
    seen = []
    streamer = type("Seen", (), {"put": lambda self, value: seen.append(value.numel()), "end": lambda self: None})()
    expected = local(build(GPT2, "float32", 7), PROMPT, do_sample=False, eos_token_id=None)
    with forked_worker(stream_seconds=60.0) as worker, connect(worker.address, key) as client:
        assert bytes_of(client, 60, "stream") - bytes_of(client, 10, "stream") == 50 * 4
        remote, meter = client.seeded(GPT2, "float32", 7), client.remote.wire.meter
        before = meter.received_frames
        found = remote.generate(PROMPT, max_new_tokens=NEW, eos_token_id=[], streamer=streamer)
        assert meter.received_frames - before == 3  # the first tokens, the others, and the end of the session
        ended = remote.generate(PROMPT, max_new_tokens=NEW, eos_token_id=int(expected[0, 5 + 3]), pad_token_id=0)
    assert torch.equal(found, expected)
    assert seen == [PROMPT.numel()] + [2] * NEW
    assert torch.equal(ended[0, : 5 + 4], expected[0, : 5 + 4])


def test_a_frame_has_no_more_waiting_tokens_than_its_operation_allows(key):
    """500 rows of 4 bytes: two steps fill a body of 4,096."""
    prompt = torch.arange(500)[:, None] % 96
    with forked_worker(stream_seconds=60.0) as worker, connect(worker.address, key) as client:
        remote, meter = client.seeded(GPT2, "float32", 7), client.remote.wire.meter
        before = meter.received_frames
        found = remote.generate(prompt, max_new_tokens=7, eos_token_id=[])
        assert meter.received_frames - before == 1 + 3 + 1
    assert torch.equal(found, local(build(GPT2, "float32", 7), prompt, new=7, do_sample=False, eos_token_id=None))


def test_each_thing_that_the_runtime_knows_saves_its_bytes(key):
    """Logits of a vocabulary, of a whole prompt, and keys and values both ways, counted by hand."""
    with forked_worker(stream_seconds=0.0) as worker, connect(worker.address, key) as client:
        spent = {mode: bytes_of(client, 3, mode) for mode in MODES}
    logits, token, length = 97 * 4, 2 * 2 * 32 * 4, PROMPT.shape[1]
    assert 3 * logits < spent["logits"] - spent["step"] < 3 * (logits + 64)
    assert spent["whole"] - spent["logits"] >= (length - 1) * logits
    states = 2 * length + 2 * (length + 1) + (length + 2)  # there and back but for the last, which only comes
    assert 0 <= spent["shipped"] - spent["logits"] - states * token < 1000
    assert 0 <= spent["carried"] - spent["step"] - states * token < 1000
    assert spent["positions"] == spent["phaseless"] == spent["stream"]


@pytest.mark.parametrize(
    ("flags", "inputs", "heads"),
    [(0, [5, 1, 1], [1, 1, 1]), (EVERY_POSITION, [5, 1, 1], [5, 1, 1]), (NO_PHASE, [5, 6, 7], [1, 1, 1])],
)
def test_a_session_computes_what_its_flags_say(flags, inputs, heads):
    """Tokens that go into the model in each step, and positions whose logits are computed."""
    model, seen = build(GPT2, "float32", 7), {"in": [], "out": []}
    model.transformer.wte.register_forward_hook(lambda module, given, found: seen["in"].append(found.shape[1]))
    model.lm_head.register_forward_hook(lambda module, given, found: seen["out"].append(found.shape[1]))
    session = Session(Held(model, "", 0), PROMPT[:1], None, Sampling(), Reply.TOKENS, flags)
    tokens = session.prefill().tokens
    for _ in range(2):
        tokens = session.decode(tokens).tokens
    assert (seen["in"], seen["out"]) == (inputs, heads)


def test_a_state_that_was_shipped_must_come_back_as_it_was(client):
    remote = client.seeded(GPT2, "float32", 7)
    request = Request(prompt=PROMPT, mask=None, sampling=Sampling(), steps=5, mode="shipped")
    ask, body = client.remote.ask, DECODE.pack(1) + struct.pack("<2i", 1, 2)
    answer = ask(Op.PREFILL, body=_prefill(remote.handle, request), tensors=[PROMPT])
    assert client.remote.stats()["sessions"][str(answer.session)]["state_bytes"] == 0
    _, keys, values = answer.tensors
    for wrong in ([], [keys], [keys[:1], values[:1]], [keys.half(), values.half()]):
        with pytest.raises(RequestRefusedError, match="the state is not the one that the last answer held"):
            ask(Op.DECODE, answer.session, body, wrong)
    assert ask(Op.DECODE, answer.session, body, [keys, values]).tensors[0].shape == (2, 97)


def test_a_model_with_a_sliding_window_does_not_ship_its_state(client):
    """Its keys and values are only the last ones: put back, they would be taken for the first."""
    remote = client.seeded(CONFIGS["mistral"], "float32", 7)
    with pytest.raises(RequestRefusedError, match=r"shipped: .* sliding window"):
        remote.generate(PROMPT, max_new_tokens=NEW, mode="shipped")


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_an_uploaded_model_follows_its_own_generation_config(client, shape):
    model = build(CONFIGS[shape], "float32", 7)
    free = local(model, PROMPT, do_sample=False, eos_token_id=None)[:, PROMPT.shape[1] :]
    settings = {"eos_token_id": [int(free[0, 2]), int(free[1, 5])], "pad_token_id": 0}
    for sampled in ({}, {"do_sample": True, "temperature": 0.7, "top_k": 5}):
        model.generation_config = transformers.GenerationConfig(**settings, **sampled)
        remote = client.upload(model)
        found = remote.generate(PROMPT, max_new_tokens=NEW, seed=3)
        assert torch.equal(found, local(model, PROMPT, seed=3))


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        ({}, 5 + 20),
        ({"max_new_tokens": 7}, 5 + 7),
        ({"max_length": 9}, 9),
        ({"max_length": 9, "max_new_tokens": 7}, 5 + 7),
    ],
)
def test_without_max_new_tokens_as_many_come_as_transformers_gives(client, saved, settings, length):
    model = build(GPT2, "float32", 7)
    model.generation_config = transformers.GenerationConfig(**settings)
    expected = model.generate(PROMPT, attention_mask=torch.ones_like(PROMPT))
    assert expected.shape == (2, length)
    model.save_pretrained(saved / f"long-{length}-{len(settings)}")
    for found in (client.upload, lambda _: client.folder(f"long-{length}-{len(settings)}")):
        remote = found(model)
        assert torch.equal(remote.generate(PROMPT), expected)
        assert remote.generate(PROMPT, max_new_tokens=3).shape == (2, 5 + 3)
        remote.free()


def test_models_of_the_same_weights_follow_their_own_generation_configs(client, saved):
    """Weights are held once; what `generate` does where nobody says is each model's own, whoever came first."""
    model, expected = build(GPT2, "float32", 11), {}
    for name, length in (("short", 8), ("shorter", 6)):
        model.generation_config = transformers.GenerationConfig(max_length=length)
        model.save_pretrained(saved / name)
        expected[name] = model.generate(PROMPT, attention_mask=torch.ones_like(PROMPT))
    remotes = {name: client.folder(name) for name in expected}
    assert remotes["short"].content == remotes["shorter"].content
    for name, remote in remotes.items():
        assert torch.equal(remote.generate(PROMPT), expected[name])
    assert client.seeded(GPT2, "float32", 11).generate(PROMPT).shape == (2, 5 + 20)


def test_a_folder_whose_generation_config_cannot_be_read_is_refused_and_takes_no_memory(client, saved):
    build(GPT2, "float32", 12).save_pretrained(saved / "broken")
    (saved / "broken" / "generation_config.json").write_text("{")
    before = client.remote.stats()["weights_bytes"]
    with pytest.raises(UserError, match=r"broken: generation_config\.json: "):
        client.folder("broken")
    assert client.remote.stats()["weights_bytes"] == before


def test_the_default_length_ends_with_the_models_positions_as_in_transformers(client):
    model = build(GPT2, "float32", 13)
    model.generation_config = transformers.GenerationConfig()
    positions = model.config.max_position_embeddings
    prompt = torch.arange(positions - 6)[None] % model.config.vocab_size
    expected = model.generate(prompt, attention_mask=torch.ones_like(prompt))
    assert expected.shape[1] == positions
    assert torch.equal(client.upload(model).generate(prompt), expected)
    assert torch.equal(client.seeded(GPT2, "float32", 13).generate(prompt), expected)
    with pytest.raises(UserError, match=rf"the model has {positions} positions"):
        client.upload(model).generate(torch.zeros((1, positions), dtype=torch.int64))


def test_a_prompt_that_is_no_matrix_is_refused(client):
    with pytest.raises(UserError, match=r"prompt: has the shape \[\], not \(rows, length\)"):
        client.seeded(GPT2, "float32", 13).generate(torch.tensor(3))


def test_a_prompt_as_long_as_max_length_is_refused_as_transformers_refuses_it(client):
    model = build(GPT2, "float32", 7)
    model.generation_config = transformers.GenerationConfig(max_length=5)
    with pytest.raises(ValueError, match="Input length of input_ids is 5, but `max_length` is set to 5"):
        model.generate(PROMPT, attention_mask=torch.ones_like(PROMPT))
    with pytest.raises(UserError, match=r"max_length: 5 leaves no room after a prompt of 5 tokens; pass"):
        client.upload(model).generate(PROMPT)


def test_the_default_length_is_told(client, caplog):
    client.seeded(GPT2, "float32", 7).generate(PROMPT)
    assert [one.getMessage() for one in caplog.records if "max_new_tokens" in one.getMessage()] == [
        "max_new_tokens: neither in the call nor in the generation_config; using 20"
    ]


def test_without_a_mask_padding_is_masked_where_transformers_infers_it(client):
    model = build(CONFIGS["llama"], "float32", 7)
    padded, settings = PROMPT * MASK, {"max_new_tokens": NEW, "do_sample": False}
    for pad, eos in ((0, 2), (0, [0, 2]), (None, 2), (0, None)):
        model.generation_config = transformers.GenerationConfig(pad_token_id=pad, eos_token_id=eos)
        remote = client.upload(model)
        found = remote.generate(padded, **settings)
        assert torch.equal(found, model.generate(padded, **settings)), (pad, eos)


def test_a_generation_config_with_a_processor_that_is_not_implemented_is_refused(client, saved):
    model = build(GPT2, "float32", 7)
    for settings in ({"repetition_penalty": 1.1}, {"suppress_tokens": [3]}, {"num_beams": 2}, {"min_new_tokens": 4}):
        model.generation_config = transformers.GenerationConfig(**settings)
        with pytest.raises(UserError, match=f"generation_config: {next(iter(settings))}: not supported"):
            client.upload(model)
    model.generation_config = transformers.GenerationConfig(top_p=0.9, repetition_penalty=1.0)
    remote = client.upload(model)
    assert torch.equal(remote.generate(PROMPT, max_new_tokens=4), local(model, PROMPT, new=4, do_sample=False))
    with pytest.raises(UserError, match="generation_config: top_p: not supported"):
        remote.generate(PROMPT, max_new_tokens=4, do_sample=True)


def test_a_saved_model_whose_generation_config_cannot_be_followed_is_refused(client, saved):
    model = build(GPT2, "float32", 7)
    model.generation_config.repetition_penalty = 1.3
    model.save_pretrained(saved / "penalised")
    remote = client.folder("penalised")
    with pytest.raises(UserError, match="generation_config: repetition_penalty: not supported"):
        remote.generate(PROMPT, max_new_tokens=4)


def test_after_a_request_that_was_cut_off_no_call_takes_its_answer(key):
    """The worker answers after the client has given up; that answer must not pass for that of the next request."""
    with forked_worker() as worker, connect(worker.address, key) as client:
        remote = client.seeded(GPT2, "float32", 7)
        client.remote.reply_seconds = 0.3  # building the model may take longer
        worker.send(signal.SIGSTOP)
        with pytest.raises(WorkerLostError, match=r"silent for 0\.3 s"):
            remote.generate(PROMPT, max_new_tokens=1)
        worker.send(signal.SIGCONT)
        time.sleep(0.2)
        with pytest.raises(WorkerLostError, match="its connection had already ended; connect again"):
            remote.generate(PROMPT.flip(1), max_new_tokens=1)


def test_an_interrupted_stream_ends_before_the_next_request_although_its_error_is_kept(client):
    class Interrupted:
        def put(self, value):
            if value.ndim == 1:
                raise KeyboardInterrupt

    remote = client.seeded(GPT2, "float32", 7)
    expected = remote.generate(PROMPT, max_new_tokens=9, eos_token_id=[])
    with pytest.raises(KeyboardInterrupt) as kept:
        remote.generate(PROMPT, max_new_tokens=100, eos_token_id=[], streamer=Interrupted())
    assert torch.equal(remote.generate(PROMPT, max_new_tokens=9, eos_token_id=[]), expected)
    assert kept.tb is not None


def test_as_many_rows_as_are_allowed_are_answered_and_more_are_refused(client):
    remote = client.seeded(GPT2, "float32", 7)
    rows = torch.arange(MOST_ROWS)[:, None] % 90
    for mode in ("stream", "step"):
        found = remote.generate(rows, max_new_tokens=3, eos_token_id=[], mode=mode)
        assert torch.equal(found[:5], remote.generate(rows[:5], max_new_tokens=3, eos_token_id=[]))
    with pytest.raises(RequestRefusedError, match="1001 rows, of at most 1000"):
        remote.generate(torch.zeros(MOST_ROWS + 1, 1).long(), max_new_tokens=1)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_shipped_state_of_any_size_may_come_back(client, rows):
    """A row of 5 tokens has 80 bytes of keys, which are padded to 128 before the values: more than both padded."""
    remote = client.seeded(GPT2 | {"n_embd": 4, "n_head": 2, "n_layer": 1}, "float32", 7)
    prompt = torch.ones(rows, 3).long()
    shipped = remote.generate(prompt, max_new_tokens=6, eos_token_id=[], mode="shipped")
    assert torch.equal(shipped, remote.generate(prompt, max_new_tokens=6, eos_token_id=[]))


def test_a_prompt_and_its_stream_are_one_round_trip_and_steps_are_one_each(client):
    remote, meter = client.seeded(GPT2, "float32", 7), client.remote.wire.meter
    trips = []
    for mode in ("stream", "step"):
        before = meter.round_trips
        remote.generate(PROMPT[:1], max_new_tokens=20, eos_token_id=[], mode=mode)
        trips.append(meter.round_trips - before)
    assert trips == [1 + 1, 1 + 19 + 1]  # the prompt, with its stream or before the steps, and the session's end


def test_counters_of_both_sides_equal_the_kernels_after_generating(client):
    model = build(CONFIGS["gemma"], "bfloat16", 2)
    remote = client.upload(model)
    for mode in ("stream", "logits"):
        remote.generate(PROMPT, max_new_tokens=NEW, mode=mode)
    settled(client.remote.wire.socket)
    kernel, meter = client.remote.wire.kernel(), client.remote.wire.meter
    assert (kernel.acknowledged, kernel.received) == (meter.sent_bytes, meter.received_bytes)
    asked = meter.since(type(meter)())
    told = client.remote.stats()
    assert told["received_bytes"] == asked.sent_bytes + 32
    assert told["sent_bytes"] == asked.received_bytes


def test_a_killed_worker_is_named_with_the_token_it_was_lost_at(key):
    with forked_worker() as worker, connect(worker.address, key) as client:
        remote = client.seeded(GPT2, "float32", 7)
        killer = killing(worker, at=4)
        with pytest.raises(WorkerLostError, match=rf"worker {worker.address}: was lost at token [5-9] of 100"):
            remote.generate(PROMPT, max_new_tokens=100, eos_token_id=[], streamer=killer, mode="step")


@pytest.mark.parametrize("mode", ["stream", "step", "logits"])
@pytest.mark.parametrize("source", ["seeded", "upload"])
def test_lineage_replays_to_a_fresh_worker_with_equal_tokens(key, mode, source):
    model = build(GPT2, "float32", 7)
    expected = local(model, PROMPT, seed=4, new=60, do_sample=True, top_k=10, eos_token_id=None)
    with forked_worker() as worker, forked_worker() as spare:
        with connect([worker.address, spare.address], key, recover="lineage") as client:
            remote = client.upload(model) if source == "upload" else client.seeded(GPT2, "float32", 7)
            killer = killing(worker, at=4)
            found = remote.generate(
                PROMPT,
                max_new_tokens=60,
                eos_token_id=[],
                do_sample=True,
                top_k=10,
                seed=4,
                streamer=killer,
                mode=mode,
            )
            assert client.remote.address == spare.address
        assert torch.equal(found, expected)
        assert torch.equal(torch.stack(killer.tokens, 1), expected[:, PROMPT.shape[1] :])


class killing:
    """A streamer that kills the worker once it has seen so many tokens."""

    def __init__(self, worker, at):
        self.worker, self.at, self.tokens = worker, at, []

    def put(self, value):
        if value.ndim == 1:
            self.tokens.append(value)
            if len(self.tokens) == self.at:
                self.worker.send(signal.SIGSTOP)  # so that no token is on its way when it is killed
                time.sleep(0.05)
                self.worker.send(signal.SIGKILL)

    def end(self):
        pass


def test_without_any_worker_left_recovery_gives_up_with_the_token(key):
    with forked_worker() as worker, connect(worker.address, key, recover="lineage", recover_seconds=0.5) as client:
        remote = client.seeded(GPT2, "float32", 7)
        told = rf"was lost at token \d+ of 100 .*, and none of {worker.address} took over within 0\.5 s"
        with pytest.raises(WorkerLostError, match=told):
            remote.generate(PROMPT, max_new_tokens=100, eos_token_id=[], streamer=killing(worker, at=4))


def test_with_lineage_a_client_is_of_the_first_worker_that_answers_and_says_so(key, address, caplog):
    dead = unused_address()
    with connect([dead, address], key, recover="lineage") as client:
        assert client.remote.address == address
        assert torch.equal(client.seeded(GPT2).generate(PROMPT, max_new_tokens=1)[:, :5], PROMPT)
    (record,) = caplog.records
    assert f"worker {dead}: cannot be reached" in record.getMessage()
    assert record.getMessage().endswith(f"continuing with worker {address}")
    with pytest.raises(UserError, match=f"worker {dead}: cannot be reached"):
        connect([dead, address], key)


@pytest.fixture
def busy(monkeypatch):
    """A worker that builds a model for another client, and what lets it finish."""
    begins, may_end, build = multiprocessing.Event(), multiprocessing.Event(), weights.build
    monkeypatch.setattr(weights, "build", lambda *asked: begins.set() or (may_end.wait() and build(*asked)))
    with forked_worker() as worker:
        other = Remote(worker.address, SECRET)
        other.wire.send(Op.LOAD, body=json_bytes(seeded(GPT2, "float32", 7)))
        assert begins.wait(60)
        yield worker, may_end


def test_a_worker_that_is_busy_for_longer_than_a_peer_may_stall_is_waited_for(busy, key, monkeypatch):
    worker, may_end = busy
    monkeypatch.setattr(client_module, "Limits", partial(Limits, stall_seconds=0.2))
    threading.Timer(1.0, may_end.set).start()
    with connect(worker.address, key) as client:
        assert client.remote.stats()["connections"] == 2


def test_with_lineage_a_client_goes_on_to_the_next_worker_while_the_first_is_busy(busy, key, address, monkeypatch):
    worker, _ = busy
    monkeypatch.setattr(client_module, "Limits", partial(Limits, stall_seconds=2.0))
    began = time.monotonic()
    with connect([worker.address, address], key, recover="lineage", reply_seconds=20.0) as client:
        assert client.remote.address == address
    assert time.monotonic() - began < 15


def test_when_no_worker_answers_each_is_named_with_its_reason(key):
    first, second = unused_address(), unused_address()
    with pytest.raises(UserError, match=f"worker {first}: cannot be reached .*; worker {second}: cannot be reached"):
        connect([first, second], key, recover="lineage")
    with pytest.raises(UserError, match=r"'nonsense': is not an address; write HOST:PORT"):
        connect([first, "nonsense"], key, recover="lineage")


def unused_address():
    """Where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("recover", ["none", "lineage"])
def test_after_a_client_was_closed_every_call_says_so_and_nothing_connects_again(key, recover):
    class Closing:
        def put(self, value):
            if value.ndim == 1:
                client.close()

    with forked_worker() as worker:
        with connect(worker.address, key, recover=recover) as client:
            remote, other = client.seeded(GPT2), client.seeded(GPT2)
            told = f"worker {worker.address}: the client has closed its connection; connect again"
            with pytest.raises(ClosedError, match=told):
                remote.generate(PROMPT, max_new_tokens=100, eos_token_id=[], streamer=Closing())
        for call in (
            lambda: remote.generate(PROMPT, max_new_tokens=1),
            lambda: client.seeded(GPT2),
            lambda: client.upload(build(GPT2, "float32", 7)),
            other.free,
            client.remote.stats,
        ):
            with pytest.raises(ClosedError, match=told):
                call()
        with connect(worker.address, key) as witness:
            assert witness.remote.stats()["connections"] == 1


def test_concurrent_sessions_wait_for_no_more_steps_than_there_are_others(address, key):
    clients = [connect(address, key) for _ in range(4)]
    remotes = [client.seeded(GPT2, "float32", 7) for client in clients]
    waits, found = {}, {}

    def run(number):
        found[number] = remotes[number].generate(PROMPT, max_new_tokens=100, eos_token_id=[])
        waits[number] = clients[number].remote.stats()["longest_wait_steps"]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[number], found[0]) for number in found)
    assert max(waits.values()) == 3
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"prompt": PROMPT + 90}, "a token is outside the vocabulary of 97"),
        ({"prompt": torch.zeros(1, 200).long()}, "200 tokens: the model has 128 positions"),
        ({"max_new_tokens": 500}, "504 tokens: the model has 128 positions"),
        ({"attention_mask": MASK.flip(1)}, "padding must stand on the left"),
        ({"attention_mask": MASK[:1]}, "not like the prompt"),
        ({"eos_token_id": [96, 97]}, "the end-of-text token 97 is outside the vocabulary of 97"),
        ({"eos_token_id": [96], "pad_token_id": 5000}, "the padding token 5000 is outside the vocabulary of 97"),
    ],
)
def test_a_request_that_the_model_cannot_take_is_refused_in_one_line(client, more, reason):
    remote = client.seeded(GPT2, "float32", 7)
    asked = {"prompt": PROMPT, "max_new_tokens": 4} | more
    with pytest.raises(RequestRefusedError, match=reason) as refused:
        remote.generate(**asked)
    assert "\n" not in str(refused.value)
    assert remote.generate(PROMPT, max_new_tokens=4, eos_token_id=[]).shape == (2, 9)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (GPT2 | {"model_type": "no-such"}, "not one of a causal language model"),
        (GPT2 | {"auto_map": {"AutoConfig": "evil.py"}}, "auto_map is not taken"),
        (GPT2 | {"attn_implementation": "someone/kernel"}, "attn_implementation is not taken"),
        (GPT2 | {"_attn_implementation": "someone/kernel"}, "_attn_implementation is not taken"),
        (GPT2 | {"n_layer": 10**6}, "n_layer is 1000000, above 1024"),
        (GPT2 | {"vocab_size": 10**8}, "weights of [0-9]+ bytes"),
        (
            {"model_type": "gpt_neo", "num_layers": 2, "attention_types": [[["global", "local"], 2_000_000_000]]},
            "attention_types is 2000000000, above 1024",
        ),
    ],
)
def test_a_config_that_asks_for_code_or_too_much_is_refused(client, config, reason):
    body = {"config": config, "dtype": "float32", "seed": 0}
    with pytest.raises(RequestRefusedError, match=reason):
        client.remote.ask(Op.LOAD, body=json_bytes(body))


MISTAKES = {
    r"config: a LlamaConfig is not a mapping; give its to_dict\(\)": lambda client: client.seeded(
        transformers.LlamaConfig()
    ),
    "config: a str is not a mapping": lambda client: client.seeded("gpt2"),
    "config: the config has no model_type": lambda client: client.seeded({"n_embd": 32}),
    "config: is not JSON": lambda client: client.seeded(GPT2 | {"activation_function": torch.nn.GELU()}),
    "config: is [0-9]+ bytes, the limit is 65536": lambda client: client.seeded(GPT2 | {"more": "x" * 70_000}),
    "dtype: unknown dtype torch.float32; choose from 'float32'": lambda client: client.seeded(GPT2, torch.float32),
    "seed: 'x' is not an integer": lambda client: client.seeded(GPT2, seed="x"),
    "folder: .* is not a str": lambda client: client.folder(None),
    "upload: 'gpt2' is not a model; pass a model from AutoModelForCausalLM": lambda client: client.upload("gpt2"),
    "upload: a Linear is not a model": lambda client: client.upload(torch.nn.Linear(2, 2)),
    "upload: a GPT2Model is not the class that its config belongs to, GPT2LMHeadModel": lambda client: client.upload(
        transformers.GPT2Model(transformers.GPT2Config(**{key: GPT2[key] for key in ("n_embd", "n_layer", "n_head")}))
    ),
    "upload: a ViTModel is not the class that its config belongs to, none": lambda client: client.upload(
        transformers.ViTModel(transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    ),
    "upload: a GPT2LMHeadModel is on the meta device": lambda client: client.upload(skeleton(GPT2, "float32")),
    "upload: a MambaForCausalLM: a MambaForCausalLM keeps no key-value cache": lambda client: client.upload(
        transformers.MambaForCausalLM(transformers.MambaConfig(**STATE_SPACE))
    ),
    "worker .*: a RwkvForCausalLM keeps no key-value cache": lambda client: client.seeded(
        {"model_type": "rwkv", **STATE_SPACE, "attention_hidden_size": 32}
    ),
    "worker .*: the config is not one of a causal language model .*is_decoder=True": lambda client: client.seeded(
        {"model_type": "reformer"}
    ),
}
STATE_SPACE = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 97}


@pytest.mark.parametrize("told", MISTAKES)
def test_a_model_that_a_worker_cannot_run_is_one_line_and_the_connection_goes_on(client, told):
    with pytest.raises(UserError, match=told) as refused:
        MISTAKES[told](client)
    assert "\n" not in str(refused.value)
    assert client.seeded(GPT2).generate(PROMPT, max_new_tokens=1).shape == (2, 6)


def test_a_saved_state_space_model_is_refused(client, saved):
    transformers.MambaForCausalLM(transformers.MambaConfig(**STATE_SPACE)).save_pretrained(saved / "mamba")
    with pytest.raises(UserError, match="a MambaForCausalLM keeps no key-value cache"):
        client.folder("mamba")


def test_a_model_that_was_given_up_is_said_to_be(client):
    remote = client.seeded(GPT2)
    remote.free()
    with pytest.raises(UserError, match="free: this model was already freed"):
        remote.free()


def test_a_config_object_runs_by_its_dict(client):
    config = transformers.LlamaConfig(**{key: value for key, value in CONFIGS["llama"].items() if key != "model_type"})
    remote = client.seeded(config.to_dict(), "float32", 7)
    expected = local(build(CONFIGS["llama"], "float32", 7), PROMPT, do_sample=False, eos_token_id=None)
    assert torch.equal(remote.generate(PROMPT, max_new_tokens=NEW, eos_token_id=[]), expected)


@pytest.mark.parametrize("name", ["../mine", "/etc", "mine/../../x", "no-such"])
def test_a_folder_outside_the_workers_models_is_refused(client, name):
    with pytest.raises(RequestRefusedError, match=r"outside the worker's folder|no such model here"):
        client.folder(name)


def test_a_folder_is_counted_in_the_type_that_it_is_loaded_as(tmp_path):
    model = build(CONFIGS["llama"], "bfloat16", 3)
    model.save_pretrained(tmp_path / "mine")
    numbers = sum(one.numel() for one in model.parameters())
    store = Store(4 * numbers, torch.device("cpu"), tmp_path)
    with pytest.raises(RefusedError, match=f"weights of {8 * numbers} bytes"):
        store.saved(store.path("mine"), "float64")
    held = store.saved(store.path("mine"), "float32")
    assert held.bytes == 4 * numbers + sum(one.nbytes for one in held.model.buffers())
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(RefusedError, match=r"mine: model\.safetensors cannot be read"):
        store.saved(store.path("mine"), "bfloat16")


def test_weights_that_hash_otherwise_are_refused(client):
    model = build(GPT2, "float32", 33)
    remote = client.upload(build(GPT2, "float32", 34))
    remote._asked = {**remote._asked, "content": "0" * 64}
    with pytest.raises(RequestRefusedError, match=r"the weights hash to .*, not to 000000000000"):
        remote.load(client.remote)
    assert client.upload(model).content != remote.content


def test_mistakes_are_told_before_anything_is_sent(client):
    remote = client.seeded(GPT2, "float32", 7)
    with pytest.raises(UserError, match="temperature: 0 is not a number above 0"):
        remote.generate(PROMPT, max_new_tokens=4, do_sample=True, temperature=0)
    with pytest.raises(UserError, match="max_new_tokens: 0 is not an integer above 0"):
        remote.generate(PROMPT, max_new_tokens=0)
    for name in ("top_k", "seed"):
        with pytest.raises(UserError, match=f"{name}: -1 is not an integer between 0 and"):
            remote.generate(PROMPT, max_new_tokens=4, do_sample=True, **{name: -1})
    sampled = {"prompt": PROMPT, "max_new_tokens": 4, "do_sample": True}
    for wrong, reason in (
        ({"prompt": PROMPT[0]}, r"prompt: has the shape \[5\], not \(rows, length\); for one row, pass prompt\[None\]"),
        ({"prompt": PROMPT[:, :0]}, r"prompt: has the shape \[2, 0\], not"),
        ({"max_new_tokens": 2.5}, "max_new_tokens: 2.5 is not an integer above 0"),
        ({"max_new_tokens": True}, "max_new_tokens: True is not an integer above 0"),
        ({"top_k": 2.5}, "top_k: 2.5 is not an integer between 0 and"),
        ({"seed": "a"}, "seed: 'a' is not an integer between 0 and"),
        ({"temperature": "x"}, "temperature: 'x' is not a number above 0"),
        ({"do_sample": "yes"}, "do_sample: 'yes' is not True or False"),
    ):
        with pytest.raises(UserError, match=reason):
            remote.generate(**(sampled | wrong))


def test_the_studys_variants_that_stream_are_those_whose_way_streams():
    assert {name for name, mode in REMOTE.items() if MODES[mode].streams} == STREAMED
