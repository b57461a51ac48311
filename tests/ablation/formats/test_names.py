import pytest

from plumbline.ablation.formats.names import parse


def named(key: str) -> tuple[str, str, str]:
    found = parse(key)
    return found.place, found.module, found.part


# Modules of Stable Diffusion 1.5, SDXL, 3 and 3.5, Flux, Wan and Stable Cascade, as the models name them.
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
    "double_blocks.3.txt_mod.lin",
    "single_blocks.12.modulation.lin",
    "guidance_in.in_layer",
    "final_layer.adaLN_modulation.1",
    "joint_blocks.3.x_block.attn2.qkv",
    "joint_blocks.3.context_block.adaLN_modulation.1",
    "transformer_blocks.3.attn.add_q_proj",
    "transformer_blocks.3.attn2.to_out.0",
    "transformer_blocks.3.ff_context.net.0.proj",
    "transformer_blocks.3.norm1_context.linear",
    "time_text_embed.timestep_embedder.linear_1",
    "blocks.11.cross_attn.k_img",
    "down_blocks.0.10.attention.attn.to_q",
    "clip_txt_pooled_mapper",
]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("down", "up"), [("lora_A", "lora_B"), ("lora_A.default", "lora_B.default")])
def test_peft_names_become_the_modules(module: str, down: str, up: str) -> None:
    assert named(f"base_model.model.{module}.{down}.weight") == ("diffusion", module, "down")
    assert named(f"base_model.model.{module}.{up}.weight") == ("diffusion", module, "up")


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("side", ["lora.down", "lora_A", "lora_linear_layer.down"])
def test_diffusers_names_become_the_modules(module: str, side: str) -> None:
    assert named(f"unet.{module}.{side}.weight") == ("diffusion", module, "down")
    assert named(f"{module}.{side}.weight") == ("diffusion", module, "down")


@pytest.mark.parametrize("module", MODULES)
def test_kohya_names_get_their_dots_back(module: str) -> None:
    prefix = f"lora_unet_{module.replace('.', '_')}"
    assert named(f"{prefix}.lora_down.weight") == ("diffusion", module, "down")
    assert named(f"{prefix}.lora_up.weight") == ("diffusion", module, "up")
    assert named(f"{prefix}.alpha") == ("diffusion", module, "alpha")


@pytest.mark.parametrize(("old", "new"), [("to_q", "to_q"), ("to_out", "to_out.0")])
def test_attention_processor_names_become_the_modules(old: str, new: str) -> None:
    attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    assert named(f"{attention}.processor.{old}_lora.down.weight") == ("diffusion", f"{attention}.{new}", "down")
    assert named(f"unet.{attention}.processor.{old}_lora.up.weight") == ("diffusion", f"{attention}.{new}", "up")
    assert named(f"{attention}.processor.{old}_lora.alpha") == ("diffusion", f"{attention}.{new}", "alpha")


@pytest.mark.parametrize("key", ["category_label", "unet.a.lora_A.bias", "unet.a.diff", "unet.a.oft_blocks"])
def test_what_no_known_format_has_is_no_part(key: str) -> None:
    assert parse(key).part == ""


@pytest.mark.parametrize("part", ["lora_magnitude_vector", "dora_scale", "hada_w1_a", "hada_t2", "lokr_w1"])
def test_tensors_of_other_formats_are_named_by_their_part(part: str) -> None:
    module = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    assert named(f"lora_unet_{module.replace('.', '_')}.{part}") == ("diffusion", module, part)
    assert named(f"base_model.model.{module}.{part}.default") == ("diffusion", module, part)


@pytest.mark.parametrize(
    "key",
    [
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha",
        "text_encoder.text_model.encoder.layers.0.self_attn.k_proj.lora_linear_layer.up.weight",
        "text_encoder_2.text_model.encoder.layers.0.self_attn.k_proj.lora_A.weight",
        "base_model.model.text_encoder.layers.0.lora_A.weight",
        "base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.lora_B.weight",
        "clip_g.transformer.text_model.encoder.layers.0.mlp.fc1.lora_up.weight",
        "lora_te3_encoder_block_0_layer_0_SelfAttention_k.lora_down.weight",
        "lora_prior_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lycoris_text_model_encoder_layers_0_mlp_fc1.lokr_w1",
        "text_encoder_3.encoder.block.0.layer.0.SelfAttention.k.lora_A.weight",
        "bundle_emb.cat.clip_l",
        "clip_l",
    ],
)
def test_text_encoders_are_recognized(key: str) -> None:
    assert parse(key).place == "text"


@pytest.mark.parametrize(
    "key", ["unet.a.attn1.to_q.lora_A.weight", "lora_unet_te_a.lora_down.weight", "unet.tempo.lora_A.weight"]
)
def test_diffusion_models_are_not_taken_for_text_encoders(key: str) -> None:
    assert parse(key).place == "diffusion"


@pytest.mark.parametrize("prefix", ["lora_unet_", "lora_transformer_", "lora_prior_unet_", "lora_prior_", "lycoris_"])
def test_every_underscored_prefix_gives_the_same_module(prefix: str) -> None:
    assert named(f"{prefix}down_blocks_0_attn1_to_q.lora_down.weight")[:2] == ("diffusion", "down_blocks.0.attn1.to_q")


@pytest.mark.parametrize("key", ["vae.encoder.conv.lora_A.weight", "encoder.0.lora_A.weight", "lycoris_net_3.lokr_w1"])
def test_a_name_that_may_be_anyones_has_no_place(key: str) -> None:
    assert parse(key).place == "unknown"
