"""Names of LoRA factors: their module, their side (down or up), and the layer sets they belong to.

Adapters of diffusion models come in three naming conventions. All are converted to `<module>.lora.down.weight` and
`<module>.lora.up.weight`, where `<module>` is the name of the layer in the diffusion model:

- PEFT: `base_model.model.<module>.lora_A.weight` and `lora_B`;
- diffusers: `unet.<module>.lora.down.weight`, `unet.<module>.lora_A.weight`,
  `<attention>.processor.to_q_lora.down.weight`;
- kohya: `lora_unet_<module, its dots turned to underscores>.lora_down.weight`, with `.alpha` beside it.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

LAYER_SETS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "all_layers": re.compile(""),
        "visual_only": re.compile(r"\.attn1\."),
        "text_only": re.compile(r"\.attn2\."),
    }
)
"""Layer set -> pattern in the names of its factors: self-attention is `attn1`, cross-attention `attn2`."""

DOWN, UP = ".lora.down.weight", ".lora.up.weight"
"""Suffixes of the two factors of a module: `down` is (rank, in), `up` is (out, rank)."""

_FACTOR = re.compile(
    r"(?P<module>.+?)(?:\.lora\.|\.lora_linear_layer\.|(?P<processor>_lora)\.|\.lora_)"
    r"(?P<side>down|up|A|B)(?:\.[^.]+)?\.weight"
)
_SUFFIX = {"down": DOWN, "A": DOWN, "up": UP, "B": UP}
_PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "unet.", "transformer.")
_UNDERSCORED = re.compile(r"lora_(?:unet|transformer)_")
_TEXT_ENCODER = re.compile(r"(?:base_model\.model\.)?(?:text_encoder(?:_\d)?\.|te\d?\.|lora_te\d?_)")

# Names whose underscores stay when kohya's underscores are turned back into dots; the longest first.
_COMPOUNDS = (
    "single_transformer_blocks|transformer_blocks|skip_connection|time_embedding|output_blocks|"
    "double_blocks|single_blocks|context_block|conv_shortcut|time_emb_proj|add_embedding|"
    "input_blocks|middle_block|joint_blocks|down_blocks|guidance_in|final_layer|to_add_out|"
    "add_q_proj|add_k_proj|add_v_proj|ff_context|out_layers|emb_layers|time_embed|mid_block|"
    "up_blocks|in_layers|label_emb|vector_in|out_layer|proj_out|proj_mlp|img_attn|txt_attn|conv_out|"
    "linear_1|linear_2|in_layer|x_block|proj_in|img_mlp|txt_mlp|img_mod|txt_mod|conv_in|time_in|"
    "to_out|img_in|txt_in|to_q|to_k|to_v"
)
_PART = re.compile(rf"({_COMPOUNDS}|[^_]+)(?:_|$)")


def in_layer_set(name: str, layers: str) -> bool:
    """Whether the column or module `name` belongs to the layer set `layers`."""
    return LAYER_SETS[layers].search(f"{name}.") is not None


def factor_name(key: str) -> str | None:
    """`<module>.lora.down.weight` or `<module>.lora.up.weight` for a factor in any convention; None for other keys."""
    found = _FACTOR.fullmatch(key)
    if found is None:
        return None
    module = _module_name(found["module"])
    if found["processor"]:
        module = re.sub(r"\.to_out$", ".to_out.0", module.replace(".processor.", "."))
    return module + _SUFFIX[found["side"]]


def alpha_module(key: str) -> str | None:
    """The module whose α the tensor `key` holds (kohya: `<module>.alpha`); None for other keys."""
    return _module_name(key.removesuffix(".alpha")) if key.endswith(".alpha") else None


def is_text_encoder(key: str) -> bool:
    """Whether `key` belongs to an adapter of a text encoder rather than of the diffusion model."""
    return _TEXT_ENCODER.match(key) is not None


def split_factor(name: str) -> tuple[str, str]:
    """(module, DOWN or UP) of a name made by `factor_name`."""
    suffix = DOWN if name.endswith(DOWN) else UP
    return name.removesuffix(suffix), suffix


def natural_order(name: str) -> list[tuple[int, str]]:
    """A sort key that puts `blocks.2` before `blocks.10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _module_name(name: str) -> str:
    """`name` without the prefixes that trainers add, with dots between its parts."""
    if underscored := _UNDERSCORED.match(name):
        return ".".join(_PART.findall(name[underscored.end() :]))
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name
