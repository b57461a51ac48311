"""What a client asks a worker to load, checked here: a mistake is one line before anything is sent."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.models.weights import FLOATS, RefusedError, check_cache, cleaned, config_of
from plumbline.disaggregation.runtime.transport.protocol import BODY_LIMITS, Op, json_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CAUSAL = "pass a model from AutoModelForCausalLM.from_pretrained"
CONTENT_BYTES = 128
"""Of a LOAD, for the content hash."""


def uploaded(model: "PreTrainedModel") -> dict[str, Any]:
    """The config and dtype of a model of this process. Raises UserError for one that a worker would not build."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

    name = f"upload: {model!r:.60}" if isinstance(model, str) else f"upload: a {type(model).__name__}"
    if not isinstance(model, PreTrainedModel):
        raise UserError(f"{name} is not a model; {CAUSAL}")
    if any(one.is_meta for one in model.parameters()):
        raise UserError(f"{name} is on the meta device and has no weights; load them first")
    dtype = str(model.dtype).removeprefix("torch.")
    built = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(model.config), None)
    classes = [one for one in (built if isinstance(built, tuple) else (built,)) if one]
    if type(model) not in classes:
        told = " or ".join(one.__name__ for one in classes) or "none"
        raise UserError(f"{name} is not the class that its config belongs to, {told}; {CAUSAL}")
    try:
        check_cache(model)
        config = config_of(model)
    except RefusedError as error:
        raise UserError(f"{name}: {error}") from None
    return _fitting({"config": config, "dtype": dtype})


def seeded(config: Mapping[str, Any], dtype: str, seed: int) -> dict[str, Any]:
    """A config, a dtype and the seed of random weights. Raises UserError."""
    if not isinstance(config, Mapping):
        fix = "its to_dict()" if hasattr(config, "to_dict") else "a dict, as a config's to_dict() gives it"
        raise UserError(f"config: a {type(config).__name__} is not a mapping; give {fix}")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise UserError(f"seed: {seed!r} is not an integer")
    _check_dtype(dtype)
    try:
        asked = {"config": cleaned(json.loads(json_bytes(dict(config)))), "dtype": dtype, "seed": seed}
    except (TypeError, ValueError) as error:
        raise UserError(f"config: is not JSON ({error}); give what a transformers config's to_dict() gives") from None
    except RefusedError as error:
        raise UserError(f"config: {error}") from None
    return _fitting(asked)


def saved(name: str, dtype: str) -> dict[str, Any]:
    """A folder of the worker's. Raises UserError."""
    if not isinstance(name, str):
        raise UserError(f"folder: {name!r} is not a str; give the name of a folder below the worker's --models")
    _check_dtype(dtype)
    return _fitting({"folder": name, "dtype": dtype})


def _check_dtype(dtype: object) -> None:
    if dtype not in FLOATS:
        raise UserError(f"dtype: unknown dtype {dtype!r}; choose from {', '.join(map(repr, FLOATS))}")


def _fitting(asked: dict[str, Any]) -> dict[str, Any]:
    """What fits into a request."""
    size, most = len(json_bytes(asked)) + CONTENT_BYTES, BODY_LIMITS[Op.LOAD]
    if size > most:
        raise UserError(f"config: is {size} bytes, the limit is {most}; drop keys that do not describe the model")
    return asked
