"""Loads models: as transformers models, with low-rank layers where the manifest has some, or as bare tensors."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plumbline.core.errors import UserError, one_line
from plumbline.throughput.models.factored import as_ours
from plumbline.throughput.models.manifest import CompressedLayer, Manifest, Shapes
from plumbline.throughput.models.unmatched import Unmatched, unmatched_in
from plumbline.throughput.models.weights import CONFIG, opened, read_config, stored

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BEST, FUSED = "best", "sdpa"
CONTEXTS = ("max_position_embeddings", "max_seq_len", "max_sequence_length")
"""What architectures call the longest sequence that they accept."""
UNQUANTISED = "only unquantised weights are measured; save it in float32, float16 or bfloat16 (model.dequantize())"


def load_tensors(manifest: Manifest, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """The weights of a variant by their names in its files, floating-point ones as `dtype`.

    A head tied to the embedding appears under the embedding's name only; low-rank layers of other tools are renamed to
    ours, and tensors that the manifest calls unused are left out. The tensors are copied into memory, not mapped from
    the file, so that memory and speed do not depend on the page cache. Raises UserError for a damaged file, or for
    weights in 8 bits, which have no meaning without their scales.
    """
    tensors = {}
    unused = set(manifest.unused)
    for name, path in stored(Path(manifest.folder)).items():
        if name in unused:
            continue
        with opened(path) as file:  # opened for each tensor: closing it frees the pages that were read
            tensor = file.get_tensor(name)
        if tensor.is_floating_point() and tensor.itemsize == 1:
            stored_as = str(tensor.dtype).removeprefix("torch.")
            raise UserError(f"{path}: {name} is stored as {stored_as}; {UNQUANTISED}")
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        tensors[name] = tensor.to(device, kind, copy=True)
        del tensor
    for layer in manifest.layers:
        as_ours(tensors, layer.name)
    return tensors


def load_transformers(
    manifest: Manifest, dtype: torch.dtype, device: torch.device, attention: str = BEST
) -> "PreTrainedModel":
    """The variant as a transformers model, for inference. `attention`: sdpa | eager, or the best that the model has.

    Its generation_config is empty: greedy, and without an end-of-text token.

    Raises UserError for a folder without config.json, a damaged weight file, an architecture that transformers does
    not support, and for tensors that are missing, have another shape or go unused, unless the manifest tolerates them.
    """
    model, unmatched = load_leniently(manifest, dtype, device, attention)
    if found := unmatched.beyond(manifest):
        raise UserError(found.explained(manifest, model))
    return model


def load_leniently(
    manifest: Manifest, dtype: torch.dtype, device: torch.device, attention: str = BEST
) -> "tuple[PreTrainedModel, Unmatched]":
    """`load_transformers`, and what in the files does not match config.json.

    Weights that the files lack are drawn from a fixed seed, so that every process has the same.
    """
    folder = Path(manifest.folder)
    config, model_class = architecture(folder)
    import transformers

    tensors = load_tensors(manifest, dtype, torch.device("cpu"))
    known = _with_low_rank(model_class, manifest.layers, frozenset(tensors)) if manifest.layers else model_class
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, found = known.from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                dtype=dtype,
                attn_implementation=supported(model_class, attention),
                ignore_mismatched_sizes=True,  # reported by the caller, in one line
                output_loading_info=True,
            )
    except (ValueError, ImportError) as error:
        raise UserError(f"{folder}: transformers cannot load it ({one_line(error)})") from None
    # Otherwise `generate` would stop, sample or penalise repetition as the folder's configuration says.
    model.generation_config = transformers.GenerationConfig()
    return model.to(device).eval().requires_grad_(False), unmatched_in(found, tensors)


def supported(model_class: Any, attention: str) -> str:
    """`attention`; the separate operations (`eager`) for a model that has no fused kernel."""
    if attention in (BEST, FUSED):
        return FUSED if model_class._supports_sdpa else "eager"
    return attention


def shapes_of(config: Any, place: str) -> Shapes:
    """An architecture's shapes, from transformers' configuration.

    Raises UserError, naming `place`, when the configuration lacks one of them.
    """
    text = config.get_text_config()
    width = _number(text, "hidden_size", place)
    heads = _first_number(text, "num_attention_heads") or 0  # none in a state-space model
    return Shapes(
        kind=config.model_type,
        vocabulary=_number(text, "vocab_size", place),
        context=_first_number(text, *CONTEXTS),
        width=width,
        layers=_number(text, "num_hidden_layers", place),
        heads=heads,
        kv_heads=_kv_heads(text) or heads,
        head_size=_first_number(text, "head_dim") or (width // heads if heads else 0),
    )


def _kv_heads(config: Any) -> int | None:
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):  # Falcon
        return 1
    return _first_number(config, "num_key_value_heads", "num_kv_heads")


def _first_number(config: Any, *keys: str) -> int | None:
    """The first of `keys` that `config` has a number for."""
    return next((found for key in keys if isinstance(found := getattr(config, key, None), int)), None)


def _number(config: Any, key: str, place: str) -> int:
    found = _first_number(config, key)
    if found is None:
        raise UserError(
            f"{place}/config.json: {key} is not a number (given: {getattr(config, key, None)!r});"
            " this architecture cannot be measured"
        )
    return found


def import_transformers(manifest: Manifest) -> None:
    """Imports what `load_transformers` needs, which takes seconds, so that forks of this process need not."""
    architecture(Path(manifest.folder))


def architecture(folder: Path) -> tuple[Any, Any]:
    """The configuration and the class of the causal language model in `folder`, without its weights.

    Raises UserError for a config.json that transformers does not know, or for a quantised model.
    """
    quantised = read_config(folder).get("quantization_config")
    if quantised:
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else "unknown"
        raise UserError(f"{folder / CONFIG}: the model is quantised (quant_method {method}); {UNQUANTISED}")
    import transformers  # takes seconds, and load_tensors does not need it
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError, ImportError) as error:
        raise UserError(f"{folder}/config.json: transformers cannot read it ({one_line(error)})") from None
    try:
        return config, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError:
        raise UserError(
            f"{folder}/config.json: transformers has no causal language model of type {config.model_type!r}"
        ) from None


def _with_low_rank(model_class: Any, layers: Sequence[CompressedLayer], names: frozenset[str]) -> Any:
    """`model_class` with each of `layers` replaced by two linear layers, with a bias where `names` has one.

    It is a class so that transformers' own loading fills it, and keeps the name because transformers looks it up.
    """

    def init(self: nn.Module, config: Any, *args: Any, **kwargs: Any) -> None:
        model_class.__init__(self, config, *args, **kwargs)
        for layer in layers:
            bias = f"{layer.name}.1.bias" in names
            self.set_submodule(layer.name, LowRank(layer.rows, layer.columns, layer.rank, bias=bias))
            # Some architectures initialise a module by the names of its layers, before the files fill them.
            setattr(self.get_submodule(layer.name.rpartition(".")[0]), "_is_hf_initialized", True)  # noqa: B010

    return type(model_class.__name__, (model_class,), {"__init__": init, "__module__": model_class.__module__})


class LowRank(nn.Sequential):
    """A linear layer (rows, columns) factored into (rank, columns) and (rows, rank)."""

    def __init__(self, rows: int, columns: int, rank: int, *, bias: bool) -> None:
        super().__init__(nn.Linear(columns, rank, bias=False), nn.Linear(rank, rows, bias=bias))
