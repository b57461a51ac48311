import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from plumbline.throughput.arithmetic import (
    decode_step_bytes,
    decode_step_flops,
    kv_bytes,
    kv_token_bytes,
    mean_context,
)
from plumbline.throughput.models.manifest import Shapes

SHAPES = Shapes(kind="llama", vocabulary=50, context=32, width=24, layers=3, heads=4, kv_heads=2, head_size=6)


@pytest.mark.parametrize(("prompt", "generated"), [(4, 32), (1, 2), (7, 9)])
def test_mean_context_is_that_of_the_steps(prompt: int, generated: int) -> None:
    seen = [prompt + step for step in range(1, generated)]
    assert mean_context(prompt, generated) == sum(seen) / len(seen)


def test_a_real_step_counts_the_same_flops_and_holds_the_same_cache() -> None:
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    batch, before = 5, 10
    config = LlamaConfig(
        vocab_size=50, hidden_size=24, intermediate_size=30, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    cache = DynamicCache(config=config)
    with torch.inference_mode():
        model(torch.zeros(batch, before, dtype=torch.int64), past_key_values=cache)
        with FlopCounterMode(display=False) as counted:
            model(torch.zeros(batch, 1, dtype=torch.int64), past_key_values=cache)
    matrices = [w for name, w in model.named_parameters() if w.dim() == 2 and "embed_tokens" not in name]
    context = before + 1
    assert counted.get_total_flops() == decode_step_flops(
        sum(weight.numel() for weight in matrices), SHAPES, batch, context
    )
    held = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
    assert held == kv_bytes(SHAPES, batch, context, itemsize=4)
    assert decode_step_bytes(1000, SHAPES, batch, context, itemsize=4) == 1000 + held


def test_bytes_follow_the_type() -> None:
    assert kv_token_bytes(SHAPES, 2) * 2 == kv_token_bytes(SHAPES, 4) == 3 * 2 * 2 * 6 * 4
