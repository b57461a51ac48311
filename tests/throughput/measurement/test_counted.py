"""A decode step's bytes and FLOPs as counted, for many architectures, against sums over their parts."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from plumbline.throughput.measurement.counted import Counted, count_steps

ENDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SIZES = ENDS | {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "max_position_embeddings": 64}
GPT2 = ENDS | {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4}
LATENT = SIZES | {"q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
LATENT |= {"first_k_dense_replace": 2, "n_routed_experts": 4, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1}
PROMPT, GENERATED = 5, 12
NUMBER = 4
"""Bytes of a float32."""


def model_of(kind: str, **sizes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).eval()
    model.generation_config = GenerationConfig()
    return model


@torch.inference_mode()
def counted(model: Any, rows: int) -> tuple[Counted, Tensor]:
    prompts = torch.randint(
        model.config.get_text_config().vocab_size, (rows, PROMPT), generator=torch.Generator().manual_seed(1)
    )
    lengths = {"max_new_tokens": GENERATED, "min_new_tokens": GENERATED}
    call = partial(model.generate, prompts, attention_mask=torch.ones_like(prompts), **lengths)
    return count_steps(model, call, GENERATED - 1), call()[:, PROMPT:]


def dense_bytes(model: nn.Module, tokens: Tensor, *, lookups: tuple[str, ...]) -> float:
    """Every parameter once, and of those that are only looked up the rows of a step's tokens, in the mean of steps."""
    steps = torch.linspace(1, GENERATED - 1, 8).round().int().tolist()
    total = 0.0
    for name, weight in model.named_parameters():
        rows = [len(weight)]
        if any(part in name for part in lookups):  # all rows of a step look up the same position
            rows = [1 if "wpe" in name else len(set(tokens[:, step - 1].tolist())) for step in steps]
        total += weight[0].nbytes * sum(rows) / len(rows)
    return total


def keys_and_values(heads: int, size: int, rows: int, window: int = 10**9) -> float:
    """Mean bytes of a layer's keys and values that a step reads."""
    seen = [min(PROMPT + step, window) for step in range(1, GENERATED)]
    return 2 * heads * size * rows * NUMBER * sum(seen) / len(seen)


CASES: dict[str, tuple[str, dict[str, Any], tuple[str, ...], list[tuple[int, int, int]]]] = {
    # kind of model, its sizes, parameters that are looked up, and per layer: key heads, their size, the window
    "grouped": ("llama", SIZES | {"num_key_value_heads": 2}, ("embed",), [(2, 8, 999)] * 2),
    "tied": ("llama", SIZES | {"tie_word_embeddings": True}, (), [(4, 8, 999)] * 2),
    "one key head": ("falcon", SIZES | {"multi_query": True}, (), [(1, 8, 999)] * 2),
    "window": ("mistral", SIZES | {"num_key_value_heads": 2, "sliding_window": 8}, ("embed",), [(2, 8, 8)] * 2),
    "mixed windows": (
        "gemma2",
        SIZES | {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8},
        (),
        [(2, 8, 8), (2, 8, 999)],
    ),
    "positions": ("gpt2", GPT2, ("wpe",), [(4, 8, 999)] * 2),
}


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_bytes_of_a_dense_model_are_those_of_its_parts(case: str, rows: int) -> None:
    kind, sizes, lookups, layers = CASES[case]
    model = model_of(kind, **sizes)
    found, tokens = counted(model, rows)
    expected = dense_bytes(model, tokens, lookups=lookups)
    assert found.weight_bytes == pytest.approx(expected)
    assert found.cache_bytes == pytest.approx(
        sum(keys_and_values(heads, size, rows, win) for heads, size, win in layers)
    )


@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral"])
@pytest.mark.parametrize("rows", [1, 3])
def test_of_experts_those_count_that_the_rows_chose(kind: str, rows: int) -> None:
    experts, chosen = 8, 2
    sizes = SIZES | {"num_key_value_heads": 2, "num_experts_per_tok": chosen, "head_dim": 8}
    sizes |= (
        {"num_experts": experts, "moe_intermediate_size": 24} if kind == "qwen3_moe" else {"num_local_experts": experts}
    )
    model = model_of(kind, **sizes)
    seen: list[list[int]] = []
    for name, module in model.named_modules():
        if name.endswith("mlp.experts"):
            module.register_forward_pre_hook(lambda _, args: seen.append([len(args[0]), len(args[1].unique())]))
    found, _ = counted(model, rows)
    steps = [number for tokens, number in seen[: len(seen) // 2] if tokens == rows]  # without prefills
    by_step = [sum(steps[at : at + 2]) for at in range(0, len(steps), 2)]
    taken = [by_step[step - 1] for step in torch.linspace(1, GENERATED - 1, 8).round().int().tolist()]
    parameters = dict(model.named_parameters())
    of_experts = sum(weight.nbytes for name, weight in parameters.items() if weight.dim() == 3)
    embedding = model.model.embed_tokens.weight.nbytes
    others = sum(weight.nbytes for weight in parameters.values()) - of_experts - embedding
    expected = others + of_experts * sum(taken) / len(taken) / (2 * experts)
    assert found.weight_bytes == pytest.approx(expected, abs=rows * SIZES["hidden_size"] * NUMBER)  # rows looked up
    if rows == 1:
        assert set(taken) == {2 * chosen}


def test_a_compressed_latent_is_the_cache_of_latent_attention() -> None:
    found, _ = counted(model_of("deepseek_v3", **LATENT), 3)
    contexts = [PROMPT + step for step in range(1, GENERATED)]
    assert found.cache_bytes == pytest.approx(2 * 3 * (8 + 4) * NUMBER * sum(contexts) / len(contexts))


def test_the_state_of_a_state_space_model_does_not_grow() -> None:
    found, _ = counted(model_of("mamba", **ENDS, vocab_size=96, hidden_size=32, num_hidden_layers=2, state_size=4), 3)
    of_layer = 3 * 64 * (4 + 4) * NUMBER  # rows, inner size, kernel of the convolution and state
    assert found.cache_bytes == found.last_cache_bytes == 2 * of_layer


def test_flops_are_those_of_a_counter_with_separate_attention_products() -> None:
    model = model_of("llama", **SIZES, num_key_value_heads=2)
    found, tokens = counted(model, 3)
    model.set_attn_implementation("eager")
    total = 0
    contexts = [PROMPT + step for step in torch.linspace(1, GENERATED - 1, 8).round().int().tolist()]
    for context in contexts:
        with torch.inference_mode():
            cache = model(torch.zeros(3, context - 1, dtype=torch.int64)).past_key_values
            with FlopCounterMode(display=False) as counter:
                model(tokens[:, :1], past_key_values=cache)
        total += counter.get_total_flops()
    assert found.flops == pytest.approx(total / len(contexts))
