"""Tensors in which a model's files and its config.json disagree, and the config key that would make them agree."""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.throughput.models.manifest import Manifest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONSTANTS = re.compile(r"(\.masked_bias|\.causal_mask|\.inv_freq|\.position_ids)$")
"""Names of constants that older versions of transformers wrote among the weights."""
NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
STRICT = "throughput.model.strict"
NAMED = 4
"""Largest number of names that a message lists of a kind."""

Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]
"""Name of a weight, its shape in the file, and its shape by config.json."""


class Unmatched(NamedTuple):
    """Names of tensors, sorted."""

    unused: list[str]
    """In the files, and not in the model."""
    missing: list[str]
    """In the model, and not in the files."""
    mismatched: list[Mismatch]

    def beyond(self, manifest: Manifest) -> "Unmatched | None":
        """Those that the manifest does not tolerate; None where it tolerates all."""
        unused = [name for name in self.unused if name not in manifest.unused]
        missing = [name for name in self.missing if name not in manifest.missing]
        other = [each for each in self.mismatched if each[0] not in manifest.missing]
        return Unmatched(unused, missing, other) if unused or missing or other else None

    def tolerated(self, manifest: Manifest, model: "PreTrainedModel", *, strict: bool) -> Manifest:
        """The manifest, which tolerates these. Raises UserError where it has to be `strict` and there are any.

        A head of its own, in the files of a model whose config.json ties it to the embedding, is used and noted.
        """
        if strict and (found := self.beyond(manifest)):
            raise UserError(found.explained(manifest, model))
        missing = sorted([*self.missing, *(name for name, _, _ in self.mismatched)])
        notes = [f"{listed(self.unused)} in its files: nothing uses them, so they are left out"] if self.unused else []
        notes += [f"{listed(missing)}: missing in its files, so they are drawn at random"] if missing else []
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
        if tied and head is not None and not _share_weights(head, embedding):
            notes.append(
                "its files have a head of its own, which is used, although config.json ties it to the embedding"
            )
        return manifest.model_copy(update={"unused": self.unused, "missing": missing, "notes": notes})

    def explained(self, manifest: Manifest, model: "PreTrainedModel") -> str:
        """One line: what does not match, and which key of config.json would make it match, as far as one can tell."""
        shapes = [f"{name} (stored {list(file)}, wanted {list(wanted)})" for name, file, wanted in self.mismatched]
        kinds = {"has, without a use for them,": self.unused, "lacks": self.missing, "has another shape for": shapes}
        parts = [f"{what} {listed(names)}" for what, names in kinds.items() if names]
        keys = list(dict.fromkeys(_keys(self, model)))
        fix = f"set {', '.join(keys)} there" if keys else "save the model and its config.json again"
        return (
            f"{manifest.folder}: config.json does not match the weights: it {'; it '.join(parts)}; {fix},"
            f" or set {STRICT}: false to leave out what is unused and draw what is missing at random"
        )


def unmatched_in(info: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Unmatched:
    """What transformers' loading report says, without constants of older versions, which are no weights."""
    weights = [name for name in info["unexpected_keys"] if not _is_constant(name, tensors.get(name))]
    other = [(name, tuple(file), tuple(wanted)) for name, file, wanted in info["mismatched_keys"]]
    return Unmatched(sorted(weights), sorted(info["missing_keys"]), sorted(other))


def listed(names: Iterable[str]) -> str:
    """`model.layers.*.mlp.up_proj.bias (32 tensors), lm_head.bias`: layers together, at most four kinds."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(NUMBER.sub("*", name), []).append(name)
    texts = [found[0] if len(found) == 1 else f"{kind} ({len(found)} tensors)" for kind, found in kinds.items()]
    return ", ".join(texts[:NAMED]) + (f" and {len(texts) - NAMED} more kinds" if len(texts) > NAMED else "")


def _share_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return first.weight is second.weight


def _is_constant(name: str, tensor: Tensor | None) -> bool:
    is_mask = tensor is not None and (
        tensor.dtype in (torch.bool, torch.uint8) or (tensor.dim() == 4 and tensor.shape[:2] == (1, 1))
    )
    return bool(CONSTANTS.search(name)) or is_mask


def _keys(found: Unmatched, model: "PreTrainedModel") -> Iterator[str]:
    """`key: value` for each change of config.json that some of the tensors ask for."""
    called = dict(model.config.attribute_map or {})
    for key, value, names in _alternatives(found, model):
        if names & set(found.unused) or set(found.missing) - names:
            yield f"{called.get(key, key)}: {str(value).lower()}"
    numbers = {key: value for key, value in model.config.to_dict().items() if type(value) is int}
    for _, file, asked in found.mismatched:
        for stored, wanted in zip(file, asked, strict=False):
            keys = sorted(key for key, value in numbers.items() if value == wanted)
            if stored != wanted and keys:
                yield f"{' or '.join(keys)}: {stored}"


def _alternatives(found: Unmatched, model: "PreTrainedModel") -> Iterator[tuple[str, Any, set[str]]]:
    """Key, value and the tensors that the model would need, for each switch turned and for the files' depth."""
    changes: list[tuple[str, bool | int]] = [
        (key, not value) for key, value in model.config.to_dict().items() if isinstance(value, bool)
    ]
    beyond, absent = ([int(n) for name in names for n in NUMBER.findall(name)[:1]] for names in found[:2])
    if depth := max(beyond) + 1 if beyond else min(absent, default=0):
        changes.append(("num_hidden_layers", depth))
    for key, value in changes:
        changed = copy.deepcopy(model.config)
        try:
            setattr(changed, key, value)
            with torch.device("meta"):
                other = type(model)(changed)
        except Exception:  # noqa: BLE001 - architectures refuse values in ways of their own: not the fix, then
            continue
        yield key, value, set(other.state_dict()) - set(other.all_tied_weights_keys)
