"""Names of an adapter's tensors, in the namings of its trainers: which module, which part of it, and whose layer.

`<module>` is the name of the layer in the diffusion model. It is found in
- PEFT: `base_model.model.<module>.lora_A.weight`, also with the adapter's name, `lora_A.default.weight`;
- diffusers, SimpleTuner, ai-toolkit: `unet.`, `transformer.` or `prior.` and `lora.down`, `lora_A` or
  `lora_linear_layer.down`; attention processors, `<attention>.processor.to_q_lora.down.weight`;
- ComfyUI: `diffusion_model.<module>` and `text_encoders.<encoder>.…`;
- kohya, OneTrainer and LyCORIS: `lora_unet_`, `lora_transformer_`, `lora_prior_unet_` or `lycoris_`, then the module
  with its dots turned to underscores, `lora_down` and `lora_up`, `hada_…` or `lokr_…`, and `.alpha` beside them.
"""

import re
from functools import lru_cache
from typing import Literal, NamedTuple

Place = Literal["diffusion", "text", "unknown"]


class Key(NamedTuple):
    """What a tensor's name says."""

    place: Place
    """Whose layer it is: the diffusion model's, a text encoder's, or unknown."""
    module: str
    """The layer, named as the diffusion model names it. Empty if the rest of the name belongs to no known format."""
    part: str
    """`down`, `up`, `mid`, `alpha`, `scalar`, `lora_magnitude_vector`, `dora_scale`, `hada_w1_a`, …; or empty."""
    names: tuple[str, ...]
    """The layer as a pattern in a configuration may name it: as in the file, or as in the model."""


_PART = re.compile(
    r"(?P<module>.+?)(?:"
    r"(?:\.lora\.|\.lora_linear_layer\.|(?P<processor>_lora)\.|\.lora_)(?P<side>down|up|A|B|mid)(?:\.[^.]+)?\.weight"
    r"|(?P<of_processor>_lora)?\.(?P<number>alpha|scalar)"
    r"|\.(?P<other>lora_magnitude_vector|dora_scale|(?:hada|lokr)_[tw]\d(?:_[ab])?)(?:\.[^.]+)?(?:\.weight)?)"
)
_SIDES = {"A": "down", "B": "up"}
LOOKS_LIKE_A_PART = re.compile(r"[._](lora|hada|lokr|dora|oft|boft|glora|ia3|diff|diff_b|w_norm|b_norm)[._]|alpha$")
"""Names of this kind belong to an adapter, whether or not they can be read."""

_PEFT = "base_model.model."
_PREFIXES = (_PEFT, "model.diffusion_model.", "diffusion_model.", "unet.", "transformer.", "prior.")
_UNDERSCORED = re.compile(r"(?:lora|oft)_(?:prior_unet|unet|transformer|prior)_|(?P<wrapped>lycoris_)")
_TEXT_ENCODER = re.compile(
    r"(?:base_model\.model\.)?(?:"
    r"(?:text_encoders?(?:_\d)?|te_?\d?|clip(?:_[a-z])?|t5(?:xxl)?|text_model|cond_stage_model|conditioner|bundle_emb)\."
    r"|(?:lora|oft)_(?:prior_)?(?:te\d?|text_encoder(?:_\d)?|clip_[a-z]|t5xxl)_"
    r"|lycoris_(?:text_model|text_encoder|encoder_block)_"
    r"|(?:clip_[lg]|emb_params)$)"
)

# Names whose underscores stay when the others are turned back into dots; the longer ones first.
_WORD = re.compile(
    r"""(
    single_transformer_blocks| distilled_guidance_layer| clip_txt_pooled_mapper| temporal_transformer|
    down_repeat_mappers| caption_projection| condition_embedder| transformer_blocks| guidance_embedder|
    timestep_embedder| up_repeat_mappers| adaLN_modulation| attention_blocks| context_embedder| class_embedding|
    clip_img_mapper| clip_txt_mapper| context_refiner| patch_embedding| skip_connection| time_projection|
    time_text_embed| image_embedder| motion_modules| text_embedding| time_embedding| add_embedding| context_block|
    conv_shortcut| double_blocks| noise_refiner| norm1_context| output_blocks| single_blocks| text_embedder|
    time_emb_proj| time_embedder| adaln_single| cap_embedder| feed_forward| input_blocks| joint_blocks|
    middle_block| down_blocks| final_layer| guidance_in| add_k_proj| add_q_proj| add_v_proj| cross_attn| emb_layers|
    ff_context| out_layers| query_norm| t_embedder| time_embed| to_add_out| x_embedder| y_embedder| in_layers|
    kv_mapper| label_emb| mid_block| out_layer| pos_embed| self_attn| time_proj| up_blocks| vector_in| conv_out|
    img_attn| in_layer| key_norm| linear_1| linear_2| norm_out| out_proj| proj_mlp| proj_out| txt_attn| conv_in|
    img_emb| img_mlp| img_mod| in_proj| proj_in| time_in| txt_mlp| txt_mod| x_block| img_in| to_out| to_qkv| txt_in|
    k_img| to_kv| v_img| to_k| to_q| to_v
    | [^_]+)(?:_|$)""",
    re.VERBOSE,
)
_FIRST = re.compile(
    r"""(
    single_transformer_blocks| transformer_blocks| down_blocks| mid_block| up_blocks| input_blocks| middle_block|
    output_blocks| double_blocks| single_blocks| joint_blocks| blocks| layers| motion_modules| transformer_2|
    time_embedding| time_embed| add_embedding| conv_in| conv_out| proj_in| proj_out| label_emb| context_embedder|
    x_embedder| time_text_embed| pos_embed| norm_out| img_in| txt_in| time_in| vector_in| guidance_in| final_layer|
    patch_embed| patch_embedding| text_embedding| time_projection| adaln_single| caption_projection|
    condition_embedder| context_refiner| noise_refiner| cap_embedder| t_embedder| y_embedder| class_embedding|
    time_caption_embed| clip_txt_mapper| clip_txt_pooled_mapper| clip_img_mapper| embedding| img_emb| head|
    distilled_guidance_layer
    )(\..*)?""",
    re.VERBOSE,
)
"""Layers of diffusion models by their first word, for names without a prefix that says whose they are."""


@lru_cache(maxsize=2**16)  # thousands of files have the same keys
def parse(key: str) -> Key:
    """What the tensor's name `key` says."""
    found = _PART.fullmatch(key)
    stem = found["module"] if found else key
    if _TEXT_ENCODER.match(key):
        return Key("text", "", "", ())
    place, module = _module(stem)
    if found is None:
        return Key(place, "", "", ())
    if found["processor"] or found["of_processor"]:
        module = re.sub(r"\.to_out$", ".to_out.0", module.replace(".processor.", "."))
    side = found["side"]
    part = _SIDES.get(side, side) or found["number"] or found["other"]
    # PEFT matches the name below base_model.model. alone; what else stands above a layer there is the base model's.
    names = (stem.removeprefix(_PEFT),) if stem.startswith(_PEFT) else (stem, module)
    return Key(place, module, part, names)


def layer_name(name: str) -> str:
    """A layer of the diffusion model without the prefixes that files and trainers add."""
    return _module(name)[1]


def _module(name: str) -> tuple[Place, str]:
    """Whose layer `name` is, and its name without the prefixes that trainers add, with dots between its parts."""
    if underscored := _UNDERSCORED.match(name):
        module = ".".join(_WORD.findall(name[underscored.end() :]))
        is_placed = not underscored["wrapped"] or bool(_FIRST.fullmatch(module))
        return "diffusion" if is_placed else "unknown", module
    bare = name
    while prefix := next((prefix for prefix in _PREFIXES if bare.startswith(prefix)), None):
        bare = bare.removeprefix(prefix)
    is_placed = bare != name or bool(_FIRST.fullmatch(bare))
    return "diffusion" if is_placed else "unknown", bare
