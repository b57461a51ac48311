import pytest

from plumbline.ablation.data.layers import (
    alpha_module,
    factor_name,
    in_layer_set,
    is_text_encoder,
    natural_order,
    split_factor,
)

# Modules of Stable Diffusion 1.5, SDXL and Flux, as the models name them.
MODULES = [
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_v",
    "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.1.attentions.2.proj_in",
    "down_blocks.1.resnets.0.conv1",
    "down_blocks.1.resnets.0.time_emb_proj",
    "down_blocks.1.resnets.0.conv_shortcut",
    "down_blocks.0.downsamplers.0.conv",
    "time_embedding.linear_1",
    "input_blocks.4.1.transformer_blocks.0.attn1.to_k",
    "single_transformer_blocks.12.proj_mlp",
    "double_blocks.3.img_attn.qkv",
]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("down", "up"), [("lora_A", "lora_B"), ("lora_A.default", "lora_B.default")])
def test_peft_names_become_the_modules(module: str, down: str, up: str) -> None:
    assert factor_name(f"base_model.model.{module}.{down}.weight") == f"{module}.lora.down.weight"
    assert factor_name(f"base_model.model.{module}.{up}.weight") == f"{module}.lora.up.weight"


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("side", ["lora.down", "lora_A", "lora_linear_layer.down"])
def test_diffusers_names_become_the_modules(module: str, side: str) -> None:
    assert factor_name(f"unet.{module}.{side}.weight") == f"{module}.lora.down.weight"
    assert factor_name(f"{module}.{side}.weight") == f"{module}.lora.down.weight"


@pytest.mark.parametrize("module", MODULES)
def test_kohya_names_get_their_dots_back(module: str) -> None:
    prefix = f"lora_unet_{module.replace('.', '_')}"
    assert factor_name(f"{prefix}.lora_down.weight") == f"{module}.lora.down.weight"
    assert factor_name(f"{prefix}.lora_up.weight") == f"{module}.lora.up.weight"
    assert alpha_module(f"{prefix}.alpha") == module


@pytest.mark.parametrize(("old", "new"), [("to_q", "to_q"), ("to_out", "to_out.0")])
def test_attention_processor_names_become_the_modules(old: str, new: str) -> None:
    attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    assert factor_name(f"{attention}.processor.{old}_lora.down.weight") == f"{attention}.{new}.lora.down.weight"
    assert factor_name(f"unet.{attention}.processor.{old}_lora.up.weight") == f"{attention}.{new}.lora.up.weight"


@pytest.mark.parametrize(
    "key",
    ["category_label", "a.lora_magnitude_vector", "a.dora_scale", "a.hada_w1_a", "a.lora_mid.weight", "a.lora_A.bias"],
)
def test_other_keys_are_not_factors(key: str) -> None:
    assert factor_name(key) is None


@pytest.mark.parametrize(
    "key",
    [
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha",
        "text_encoder.text_model.encoder.layers.0.self_attn.k_proj.lora_linear_layer.up.weight",
        "text_encoder_2.text_model.encoder.layers.0.self_attn.k_proj.lora_A.weight",
        "base_model.model.text_encoder.layers.0.lora_A.weight",
    ],
)
def test_text_encoders_are_recognized(key: str) -> None:
    assert is_text_encoder(key)


@pytest.mark.parametrize(
    "key", ["unet.a.attn1.to_q.lora_A.weight", "lora_unet_te_a.lora_down.weight", "tempo.lora_A.weight"]
)
def test_diffusion_models_are_not_taken_for_text_encoders(key: str) -> None:
    assert not is_text_encoder(key)


def test_layer_sets_hold_self_and_cross_attention() -> None:
    visual, text = "blocks.0.attn1.to_q.lora.down.weight", "blocks.0.attn2.to_q"
    assert [in_layer_set(visual, layers) for layers in ("all_layers", "visual_only", "text_only")] == [
        True,
        True,
        False,
    ]
    assert [in_layer_set(text, layers) for layers in ("all_layers", "visual_only", "text_only")] == [True, False, True]
    assert in_layer_set("blocks.0.attn1", "visual_only")
    assert not in_layer_set("blocks.0.attn10.to_q", "visual_only")


def test_a_factor_splits_into_module_and_side() -> None:
    assert split_factor("a.b.lora.up.weight") == ("a.b", ".lora.up.weight")
    assert split_factor("a.b.lora.down.weight") == ("a.b", ".lora.down.weight")


def test_names_sort_by_their_numbers() -> None:
    names = [f"blocks.{number}.to_q" for number in range(12)] + ["blocks.x"]
    assert sorted(set(names), key=natural_order) == names
