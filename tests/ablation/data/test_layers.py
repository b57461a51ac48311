from itertools import chain

import pytest

from plumbline.ablation.data.layers import LAYER_SETS, in_layer_set, natural_order, split_factor, why_empty

UNET = "down_blocks.0.attentions.0.transformer_blocks.0"
# Architecture: (layers of self-attention over the image, of cross-attention to the text, of neither).
ARCHITECTURES = {
    "Stable Diffusion 1.5 and SDXL": ([f"{UNET}.attn1.to_q"], [f"{UNET}.attn2.to_k"], [f"{UNET}.ff.net.0.proj"]),
    "SDXL, original names": (
        ["input_blocks.4.1.transformer_blocks.0.attn1.to_q"],
        ["input_blocks.4.1.transformer_blocks.0.attn2.to_q"],
        ["input_blocks.4.0.in_layers.2"],
    ),
    "AnimateDiff": (
        [
            f"{UNET}.attn1.to_q",
            "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q",
            "down_blocks.0.motion_modules.0.transformer_blocks.0.attn2.to_q",
        ],
        [f"{UNET}.attn2.to_q"],
        [],
    ),
    "PixArt": (["transformer_blocks.0.attn1.to_q"], ["transformer_blocks.0.attn2.to_q"], []),
    "SD 3": ([], [], ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.add_q_proj"]),
    "SD 3.5 medium": (
        ["transformer_blocks.0.attn2.to_q", "transformer_blocks.1.attn2.to_out.0"],
        [],
        ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.add_q_proj", "transformer_blocks.13.attn.to_q"],
    ),
    "SD 3.5 medium, original names": (
        ["joint_blocks.0.x_block.attn2.qkv"],
        [],
        ["joint_blocks.0.x_block.attn.qkv", "joint_blocks.0.context_block.attn.qkv"],
    ),
    "Flux": ([], [], ["double_blocks.0.img_attn.qkv", "single_transformer_blocks.0.attn.to_q"]),
    "Wan": (["blocks.0.self_attn.q"], ["blocks.0.cross_attn.k"], ["blocks.0.ffn.0"]),
    "Stable Cascade": ([], [], ["down_blocks.0.2.attention.to_q"]),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("suffix", ["", ".lora.down.weight"])
def test_layer_sets_follow_the_architecture(architecture: str, suffix: str) -> None:
    visual, text, neither = ([name + suffix for name in names] for names in ARCHITECTURES[architecture])
    every = [*neither, *visual, *text]
    assert [in_layer_set(every, layers) for layers in LAYER_SETS] == [every, visual, text]


def test_an_empty_layer_set_says_why() -> None:
    joint = ARCHITECTURES["SD 3.5 medium"]
    assert "sees image and text together" in why_empty(chain(*joint), "text_only")
    assert "sees image and text together" in why_empty(ARCHITECTURES["Flux"][2], "visual_only")
    assert "none is cross-attention" in why_empty([f"{UNET}.attn1.to_q"], "text_only")


def test_attn2_alone_in_a_transformer_is_in_neither_set_since_models_differ() -> None:
    names = [f"transformer_blocks.{number}.attn2.to_q" for number in range(2)]
    for layers in ("visual_only", "text_only"):
        assert in_layer_set(names, layers) == []
        assert "self-attention in SD 3.5 and cross-attention elsewhere" in why_empty(names, layers)
    assert in_layer_set([f"{UNET}.attn2.to_q"], "text_only") == [f"{UNET}.attn2.to_q"]


def test_names_that_only_begin_like_attention_are_none() -> None:
    assert in_layer_set(["blocks.0.attn1"], "visual_only") == ["blocks.0.attn1"]
    assert in_layer_set(["blocks.0.attn10.to_q"], "visual_only") == []


def test_a_factor_splits_into_module_and_side() -> None:
    assert split_factor("a.b.lora.up.weight") == ("a.b", ".lora.up.weight")
    assert split_factor("a.b.lora.down.weight") == ("a.b", ".lora.down.weight")


def test_names_sort_by_their_numbers() -> None:
    names = [f"blocks.{number}.to_q" for number in range(12)] + ["blocks.x"]
    assert sorted(set(names), key=natural_order) == names
