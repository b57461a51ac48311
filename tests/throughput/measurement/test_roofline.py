import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from plumbline.throughput.engines.interface import Shape
from plumbline.throughput.measurement.roofline import decode_step, roofline
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
    step = decode_step(weights, SHAPES, shape, 4)
    assert step.bytes == pytest.approx(sum(moved) / len(moved))
    assert step.flops == pytest.approx(sum(computed) / len(computed))
    assert step.kv_bytes == 4 * 5 * 3 * 2 * 2 * 3 * 11


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
    step = decode_step(matrices, shapes, Shape(batch=5, prompt=10, generated=2), 4)
    assert step.flops == counted.get_total_flops()
    held = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
    assert step.bytes == held + sum(weight.nbytes for weight in matrices)


def test_shared_storage_counts_once():
    fused = torch.zeros(10, 6)
    shape = Shape(batch=1, prompt=1, generated=2)
    once = decode_step([fused], SHAPES, shape, 4)
    assert decode_step([fused[:4], fused[4:], fused.T], SHAPES, shape, 4) == once


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
