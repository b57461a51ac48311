"""Loads models: as transformers models, with low-rank layers where the manifest has some, or as bare tensors."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plumbline.core.errors import UserError
from plumbline.throughput.models.manifest import CompressedLayer, Manifest, Shapes
from plumbline.throughput.models.weights import opened, read_config, stored

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_tensors(manifest: Manifest, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """The weights of a variant by their names in its files, floating-point ones as `dtype`.

    A head tied to the embedding appears under the embedding's name only. The tensors are copied into memory, not
    mapped from the file, so that memory and speed do not depend on the page cache. Raises UserError for a damaged file.
    """
    tensors = {}
    for name, path in stored(Path(manifest.folder)).items():
        with opened(path) as file:  # opened for each tensor: closing it frees the pages that were read
            tensor = file.get_tensor(name)
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        tensors[name] = tensor.to(device, kind, copy=True)
        del tensor
    return tensors


def load_transformers(
    manifest: Manifest, dtype: torch.dtype, device: torch.device, attention: str
) -> "PreTrainedModel":
    """The variant as a transformers model, for inference. `attention`: sdpa | eager.

    Its generation_config is empty: greedy, and without an end-of-text token.

    Raises UserError for a folder without config.json, a damaged weight file, an architecture that transformers does
    not support, or missing weights.
    """
    folder = Path(manifest.folder)
    config, model_class = _architecture(folder)
    import transformers

    tensors = load_tensors(manifest, dtype, torch.device("cpu"))
    known = _with_low_rank(model_class, manifest.layers, frozenset(tensors)) if manifest.layers else model_class
    try:
        model, found = known.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=dtype,
            attn_implementation=attention,
            ignore_mismatched_sizes=True,  # reported below, in one line
            output_loading_info=True,
        )
    except (ValueError, ImportError) as error:
        raise UserError(f"{folder}: transformers cannot load it ({_line(error)})") from None
    for what, names in (("lacks", found["missing_keys"]), ("has another shape for", found["mismatched_keys"])):
        if names:
            first = sorted(name if isinstance(name, str) else name[0] for name in names)[0]
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{folder}: {what} {first}{more}, which its config.json asks for; save the model again")
    # Otherwise `generate` would stop, sample or penalise repetition as the folder's configuration says.
    model.generation_config = transformers.GenerationConfig()
    return model.to(device).eval().requires_grad_(False)


def shapes_of(config: Any, place: str) -> Shapes:
    """An architecture's shapes, from transformers' configuration.

    Raises UserError, naming `place`, when the configuration lacks one of them.
    """
    text = config.get_text_config()
    width, heads = _number(text, "hidden_size", place), _number(text, "num_attention_heads", place)
    return Shapes(
        kind=config.model_type,
        vocabulary=_number(text, "vocab_size", place),
        context=_number(text, "max_position_embeddings", place),
        width=width,
        layers=_number(text, "num_hidden_layers", place),
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_size=getattr(text, "head_dim", None) or width // heads,
    )


def _number(config: Any, key: str, place: str) -> int:
    found = getattr(config, key, None)
    if not isinstance(found, int):
        raise UserError(
            f"{place}/config.json: {key} is not a number (given: {found!r}); this architecture cannot be measured"
        )
    return found


def import_transformers(manifest: Manifest) -> None:
    """Imports what `load_transformers` needs, which takes seconds, so that forks of this process need not."""
    _architecture(Path(manifest.folder))


def _architecture(folder: Path) -> tuple[Any, Any]:
    """The configuration and the class of the causal language model in `folder`."""
    read_config(folder)
    import transformers  # takes seconds, and load_tensors does not need it
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError, ImportError) as error:
        raise UserError(f"{folder}/config.json: transformers cannot read it ({_line(error)})") from None
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


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
