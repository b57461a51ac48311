"""Layers of diffusion models: the names of their factors in a store, and the layer sets they belong to.

A module's factors are `<module>.lora.down.weight` (rank × in) and `<module>.lora.up.weight` (out × rank).
"""

import re
from collections.abc import Iterable

LAYER_SETS = ("all_layers", "visual_only", "text_only")
"""All; those with self-attention over the image; those with cross-attention to the text."""

DOWN, UP = ".lora.down.weight", ".lora.up.weight"
"""Suffixes of the two factors of a module: `down` is (rank, in), `up` is (out, rank)."""

# In a U-Net and in most transformers attn1 attends to the image and attn2 to the text. Three architectures differ: a
# joint block (SD 3) has `attn` for image and text, and in SD 3.5 medium `attn2` for the image; AnimateDiff's motion
# modules attend to other frames with both; Wan's own names are self_attn and cross_attn.
_ATTENTION = re.compile(r"(?P<block>.*?)\.(?P<kind>attn[12]?)\.")
_WAN = re.compile(r"(?:.*\.)?blocks\.\d+\.(?P<kind>self|cross)_attn\.")
_JOINT = re.compile(r"(double|single|joint|single_transformer)_blocks\.")
_OUTERMOST = re.compile(r"transformer_blocks\.\d+")


def in_layer_set(names: Iterable[str], layers: str) -> list[str]:
    """Which of `names`, factors or modules of one adapter, belong to the layer set `layers`."""
    names = list(names)
    if layers == "all_layers":
        return names
    wanted, kinds = "image" if layers == "visual_only" else "text", _attentions(names)
    if kinds == {"attn2"}:  # see why_empty
        return []
    return [name for name in names if _attends_to(name, is_joint="attn" in kinds) == wanted]


def why_empty(names: Iterable[str], layers: str) -> str:
    """Why none of `names` is in the layer set `layers`."""
    names = list(names)
    if _attentions(names) == {"attn2"}:
        return (
            f"no layer is known to belong to {layers}: attn2 without attn1 or attn beside it is self-attention in"
            " SD 3.5 and cross-attention elsewhere"
        )
    what = "self-attention" if layers == "visual_only" else "cross-attention"
    if "attn" in _attentions(names) or any(_JOINT.match(name) for name in names):
        return f"the adapters have no layers in {layers}: their attention sees image and text together"
    return f"the adapters have no layers in {layers}: none is {what}; their first layer is {min(names, default='none')}"


def split_factor(name: str) -> tuple[str, str]:
    """(module, DOWN or UP) of a factor's name."""
    suffix = DOWN if name.endswith(DOWN) else UP
    return name.removesuffix(suffix), suffix


def natural_order(name: str) -> list[tuple[int, str]]:
    """A sort key that puts `blocks.2` before `blocks.10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _attends_to(name: str, *, is_joint: bool) -> str:
    """`image`, `text`, or nothing where it is neither alone. is_joint: whether the model's blocks are joint ones."""
    if wan := _WAN.match(f"{name}."):
        return "image" if wan["kind"] == "self" else "text"
    found = _ATTENTION.match(f"{name}.")
    if found is None or found["kind"] == "attn":
        return ""
    block = found["block"]
    both = "motion_modules." in block or "joint_blocks." in block or (is_joint and _OUTERMOST.fullmatch(block))
    return "text" if found["kind"] == "attn2" and not both else "image"


def _attentions(names: Iterable[str]) -> set[str]:
    """Which of attn, attn1 and attn2 the model's own transformer blocks have, those of no U-Net."""
    found = [match for name in names if (match := _ATTENTION.match(f"{name}."))]
    return {match["kind"] for match in found if _OUTERMOST.fullmatch(match["block"])}
