import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from plumbline.throughput.engines.interface import Shape
from plumbline.throughput.measurement.roofline import Bandwidth, Limits, MatmulRate, decode_step, roofline
from plumbline.throughput.models.manifest import Shapes

SHAPES = Shapes(kind="llama", vocabulary=11, context=64, width=12, layers=3, heads=4, kv_heads=2, head_size=3)


def test_step_is_what_a_loop_over_rows_layers_heads_and_tokens_counts():
    weights = [torch.zeros(12, 20), torch.zeros(11, 12)]
    shape = Shape(batch=5, prompt=4, generated=7)
    moved, computed = [], []
    for token in range(1, shape.generated):
        moved.append(4 * sum(weight.numel() for weight in weights))
        computed.append(0)
        for _ in range(shape.batch):
            computed[-1] += 2 * sum(weight.numel() for weight in weights)
            for _ in range(SHAPES.layers):
                moved[-1] += 4 * (shape.prompt + token) * SHAPES.kv_heads * SHAPES.head_size * 2
                computed[-1] += SHAPES.heads * (shape.prompt + token) * SHAPES.head_size * 2 * 2
    step = decode_step(weights, None, SHAPES, shape, 4)
    assert step.bytes == pytest.approx(sum(moved) / len(moved))
    assert step.flops == pytest.approx(sum(computed) / len(computed))
    assert step.kv_bytes == 4 * 5 * 3 * 2 * 2 * 3 * 11
    hidden, logits = torch.zeros(5, 4, SHAPES.width), torch.zeros(5, SHAPES.vocabulary)
    assert step.activation_bytes == hidden.nbytes + logits.nbytes


def test_step_is_what_transformers_computes_and_reads():
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=11, hidden_size=24, intermediate_size=30, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, attn_implementation="eager",
    )  # fmt: skip
    model, cache = LlamaForCausalLM(config).eval(), DynamicCache(config=config)
    with torch.inference_mode():
        model(torch.zeros(5, 10, dtype=torch.int64), past_key_values=cache)
        with FlopCounterMode(display=False) as counted:
            model(torch.zeros(5, 1, dtype=torch.int64), past_key_values=cache)
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    shapes = SHAPES.model_copy(update={"width": 24, "head_size": 6})  # rotary positions want an even size
    step = decode_step(matrices, None, shapes, Shape(batch=5, prompt=10, generated=2), 4)
    assert step.flops == counted.get_total_flops()
    held = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
    assert step.bytes == held + sum(weight.nbytes for weight in matrices)


def test_shared_storage_counts_once():
    fused = torch.zeros(10, 6)
    shape = Shape(batch=1, prompt=1, generated=2)
    once = decode_step([fused], None, SHAPES, shape, 4)
    assert decode_step([fused[:4], fused[4:], fused.T], None, SHAPES, shape, 4) == once


def test_ceiling_is_set_by_what_takes_longer():
    slow_memory = roofline(batch=8, step_bytes=1e6, step_flops=1e6, bandwidth=1e9, flops=1e10, tokens_per_second=4000.0)
    assert (slow_memory["binds"], slow_memory["ceiling_tokens_per_second"]) == ("bandwidth", pytest.approx(8000))
    assert slow_memory["mbu"] == slow_memory["ceiling_share"] == pytest.approx(0.5)
    assert slow_memory["mfu"] == pytest.approx(0.05)
    slow_units = roofline(batch=8, step_bytes=1e6, step_flops=1e8, bandwidth=1e9, flops=1e10, tokens_per_second=None)
    assert (slow_units["binds"], slow_units["ceiling_tokens_per_second"]) == ("compute", pytest.approx(800))
    assert "mbu" not in slow_units
    assert set(roofline(batch=1, step_bytes=1, step_flops=1, bandwidth=None, flops=1.0, tokens_per_second=1.0)) == {
        "decode_step_bytes", "decode_step_flops", "limit_bandwidth_bytes_per_second", "limit_flops_per_second",
    }  # fmt: skip


LADDER = {2**20: 1e11, 2**22: 2.5e10, 2**24: 1e10}
LIMITS = Limits(
    machine={}, device="cpu",
    bandwidths=[
        Bandwidth(threads=threads, bytes=size, bytes_per_second=threads * rate)
        for threads in (1, 4) for size, rate in LADDER.items()
    ],
    matmul_rates=[MatmulRate(threads=threads, dtype="float32", flops_per_second=threads * 1e11) for threads in (1, 4)],
)  # fmt: skip


def test_share_of_the_ceiling_is_of_the_bandwidth_at_the_bytes_that_a_step_reads():
    shares = {}
    for read in (2**20, 2**22):
        bandwidth = LIMITS.bytes_per_second(read, 1)
        found = roofline(
            batch=1, step_bytes=read, step_flops=1.0, bandwidth=bandwidth, flops=1e11, tokens_per_second=1000.0
        )
        shares[read] = found["ceiling_share"]
    assert shares == pytest.approx({2**20: 1000 * 2**20 / 1e11, 2**22: 1000 * 2**22 / 2.5e10})


@pytest.mark.parametrize(
    ("read", "rate"),
    [(2**21, 5e10), (2**22 * 1.0, 2.5e10), (2**23, (2.5e10 * 1e10) ** 0.5), (1000, 1e11), (2**30, 1e10)],
)
def test_bandwidth_between_two_working_sets_is_their_geometric_mean_and_constant_beyond_the_ladder(read, rate):
    assert LIMITS.bytes_per_second(read, 1) == pytest.approx(rate)


def test_working_set_counts_as_no_slower_than_a_larger_one():
    rates = {2**18: 4e10, 2**20: 1e11, 2**22: 2.5e10}  # the overhead of a call slows the smallest down
    known = [Bandwidth(threads=1, bytes=size, bytes_per_second=rate) for size, rate in rates.items()]
    limits = LIMITS.model_copy(update={"bandwidths": known})
    assert limits.bytes_per_second(2**18, 1) == limits.bytes_per_second(2**19, 1) == pytest.approx(1e11)


@pytest.mark.parametrize(("threads", "measured"), [(1, 1), (2, 4), (4, 4), (9, 4)])
def test_limits_are_those_of_as_many_threads_or_of_the_next_number_measured(threads, measured):
    assert LIMITS.bytes_per_second(2**22, threads) == pytest.approx(measured * 2.5e10)
    assert LIMITS.flops_per_second("float32", threads) == measured * 1e11
    assert LIMITS.flops_per_second("float16", threads) is None
