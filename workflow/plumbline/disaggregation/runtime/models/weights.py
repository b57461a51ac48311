"""Models: built from a seeded config, read from a folder, or from weights that were uploaded; held once per content.

A config comes from a client. It never leads to code of someone else's: keys that name code or kernels are refused.
"""

import hashlib
import inspect
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plumbline.core.errors import UserError, one_line
from plumbline.core.run.device import memory_error
from plumbline.disaggregation.runtime.transport import buffers

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel

GENERATION_CONFIG = "generation_config.json"
FLOATS = ("float32", "bfloat16", "float16", "float64")
REFUSED = ("auto_map", "quantization_config", "attn_implementation")
DROPPED = ("transformers_version", "_name_or_path", "architectures", "dtype")
"""Keys of a config that say nothing about the model, or what is said beside the config."""
LARGEST_NUMBER = 2**31
COUNTS = ("layer", "expert", "attention_types")
"""Parts of the names of keys that say how many modules there are."""
MOST_LAYERS = 1024
"""Also of experts: a module of each is made before the size of the weights is known."""


class RefusedError(UserError):
    """A request that is not carried out; the message is the reason. The connection goes on."""


def cleaned(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as it travels and as content hashes have it. Raises RefusedError for keys or sizes not taken."""
    kept = {key: value for key, value in config.items() if key not in DROPPED}
    _check(kept)
    if not isinstance(kept.get("model_type"), str):
        raise RefusedError("the config has no model_type")
    return kept


def _check(values: Any, key: str = "") -> None:
    if isinstance(values, dict):
        for name, value in values.items():
            if name.startswith("_") or (name in REFUSED and value is not None):
                raise RefusedError(f"the config's key {name} is not taken")
            _check(value, name)
    elif isinstance(values, list):
        for value in values:
            _check(value, key)
    elif isinstance(values, int):
        most = MOST_LAYERS if any(part in key for part in COUNTS) else LARGEST_NUMBER
        if abs(values) > most:
            raise RefusedError(f"the config's {key} is {values}, above {most}")


def config_of(model: "PreTrainedModel") -> dict[str, Any]:
    """The config of a model as it travels."""
    return cleaned(json.loads(model.config.to_json_string(use_diff=True)))


def build(config: Mapping[str, Any], dtype: str, seed: int) -> "PreTrainedModel":
    """The model of a config, with the random weights that transformers draws from `seed`; ready for inference."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _made(config, dtype).eval()


def skeleton(config: Mapping[str, Any], dtype: str) -> "PreTrainedModel":
    """The model of a config on the device `meta`, where it takes no memory."""
    with torch.device("meta"):
        return _made(config, dtype)


def specs_of(model: "PreTrainedModel") -> dict[str, buffers.TensorSpec]:
    """Name -> type and shape of the model's weights, each shared one once."""
    return {name: buffers.TensorSpec(one.dtype, tuple(one.shape)) for name, one in weights_of(model).items()}


def weights_of(model: "PreTrainedModel") -> dict[str, Tensor]:
    """Parameters and saved buffers by name, each shared one once: under its first name."""
    known: set[int] = set()
    found = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in known:
            known.add(id(tensor))
            found[name] = tensor
    return found


def filled(config: Mapping[str, Any], dtype: str, weights: Mapping[str, Tensor]) -> "PreTrainedModel":
    """The model of a config with these weights; none are drawn first."""
    empty = skeleton(config, dtype)
    model = type(empty).from_pretrained(
        None, config=empty.config, state_dict=dict(weights), dtype=getattr(torch, dtype)
    )
    return model.eval()


def from_folder(folder: Path, dtype: str) -> "PreTrainedModel":
    """The model that transformers saved in `folder`, from safetensors. Raises RefusedError when it cannot be read."""
    from transformers import AutoModelForCausalLM

    if not (folder / "config.json").is_file():
        raise RefusedError(f"{folder.name}: no such model here")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, ImportError) as error:
        raise RefusedError(f"{folder.name}: {one_line(error)}") from None
    check_cache(model)
    return model.eval()


def generation_config(held: "Held", folder: Path | None = None) -> "GenerationConfig":
    """The generation_config that lies in `folder`; without one, what transformers takes from the model's config.

    Not that of the model which is held: it may have come from elsewhere, with the same weights and other defaults.
    Raises RefusedError when the file cannot be read.
    """
    from transformers import GenerationConfig

    if folder is None or not (folder / GENERATION_CONFIG).is_file():
        return GenerationConfig.from_model_config(held.model.config)
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise RefusedError(f"{folder.name}: {GENERATION_CONFIG}: {one_line(error)}") from None


def stored_size(folder: Path, dtype: str) -> int:
    """Bytes of the weights that lie in `folder`, in this dtype. Raises RefusedError when they cannot be read."""
    from safetensors import SafetensorError, safe_open

    numbers = 0
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                numbers += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise RefusedError(f"{folder.name}: {path.name} cannot be read ({one_line(error)})") from None
    return numbers * int(getattr(torch, dtype).itemsize)


def content_hash(model: "PreTrainedModel") -> str:
    """SHA-256 over the config and every weight's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(config_of(model), sort_keys=True).encode())
    for name, tensor in sorted(weights_of(model).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(buffers.raw(tensor))
    return digest.hexdigest()


def held_bytes(model: "PreTrainedModel") -> int:
    """Bytes of parameters and buffers, also of those that are not saved, each shared one once."""
    return sum({id(one): one.nbytes for one in (*model.parameters(), *model.buffers())}.values())


def _made(config: Mapping[str, Any], dtype: str) -> "PreTrainedModel":
    from transformers import AutoConfig, AutoModelForCausalLM

    if dtype not in FLOATS:
        raise RefusedError(f"dtype {dtype!r}; choose from {', '.join(FLOATS)}")
    values = {key: value for key, value in config.items() if key not in ("model_type", "dtype")}
    try:
        known = AutoConfig.for_model(config["model_type"], **values)
        model = AutoModelForCausalLM.from_config(known, dtype=getattr(torch, dtype))
    except Exception as error:  # noqa: BLE001  whatever transformers raises for the values that a stranger gives
        if (named := memory_error(error)) is not None:
            raise named from None
        raise RefusedError(f"the config is not one of a causal language model ({one_line(error)[:200]})") from None
    check_cache(model)
    return model


def check_cache(model: "PreTrainedModel") -> None:
    """Raises RefusedError for a model whose state is not a cache that is handed to it: one that its module keeps, such
    as a state-space model's, would be taken for that of the next session.
    """
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise RefusedError(
            f"a {type(model).__name__} keeps no key-value cache (`past_key_values`): state-space models such as Mamba "
            "and RWKV cannot be run on a worker; generate locally"
        )


@dataclass
class Held:
    """A model that some connections use."""

    model: "PreTrainedModel"
    content: str
    bytes: int
    users: int = 0

    @cached_property
    def config(self) -> "PretrainedConfig":
        """The part of the model's config that describes its decoder."""
        return self.model.config.get_text_config(decoder=True)

    @cached_property
    def vocabulary(self) -> int:
        """Number of tokens that the model knows."""
        return int(self.config.vocab_size)

    @cached_property
    def state_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers, for models that keep all of them."""
        config = self.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(2 * config.num_hidden_layers * heads * width * self.dtype.itemsize)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Of the weights; transformers looks it up anew each time."""
        return self.model.dtype

    @cached_property
    def device(self) -> torch.device:
        """Where the weights are; transformers looks it up anew each time."""
        return self.model.device

    @cached_property
    def arguments(self) -> frozenset[str]:
        """Names of what the model's `forward` takes."""
        return frozenset(inspect.signature(self.model.forward).parameters)


class Store:
    """The models of a worker: each content once, for as long as a connection uses it, within `most_bytes`."""

    def __init__(self, most_bytes: int, device: torch.device, folder: Path | None = None) -> None:
        self.most_bytes = most_bytes
        self.device = device
        self.folder = folder
        self._held: dict[str, Held] = {}
        self._known: dict[str, str] = {}
        """Content by what was asked for: a seeded config, or a folder."""
        self._reserved = 0

    @property
    def bytes(self) -> int:
        """Bytes of all weights, those on their way included."""
        return sum(held.bytes for held in self._held.values()) + self._reserved

    def by_content(self, content: str) -> Held | None:
        """The model with this content hash, if it is held."""
        return self._taken(self._held.get(content))

    def seeded(self, config: Mapping[str, Any], dtype: str, seed: int) -> Held:
        """The model of a config with random weights. Raises RefusedError."""
        asked = json.dumps(["seeded", dict(config), dtype, seed], sort_keys=True)
        if held := self._held.get(self._known.get(asked, "")):
            return self._counted(held)
        with self._room(held_bytes(skeleton(config, dtype))):  # before any of it exists
            return self._add(build(config, dtype, seed), asked)

    def path(self, name: str) -> Path:
        """The folder `name` below the worker's. Raises RefusedError."""
        if self.folder is None:
            raise RefusedError("this worker has no folder of models; start it with --models")
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise RefusedError(f"{name}: is outside the worker's folder of models")
        return path

    def saved(self, path: Path, dtype: str) -> Held:
        """The model in a folder. Raises RefusedError."""
        if dtype not in FLOATS:
            raise RefusedError(f"dtype {dtype!r}; choose from {', '.join(FLOATS)}")
        asked = json.dumps(["saved", str(path), dtype])
        if held := self._held.get(self._known.get(asked, "")):
            return self._counted(held)
        with self._room(stored_size(path, dtype)):
            return self._add(from_folder(path, dtype), asked)

    def uploaded(self, config: Mapping[str, Any], dtype: str, weights: Mapping[str, Tensor], content: str) -> Held:
        """The model with weights from a client. Raises RefusedError when their hash is not the one it named."""
        model = filled(config, dtype, weights)
        if (found := content_hash(model)) != content:
            raise RefusedError(f"the weights hash to {found[:12]}, not to {content[:12]}")
        return self._add(model, None)

    def reserve(self, size: int) -> None:
        """Keeps so many bytes for weights that are to come. Raises RefusedError when they would not fit."""
        if self.bytes + size > self.most_bytes:
            raise RefusedError(f"weights of {size} bytes: {self.bytes} of {self.most_bytes} are in use here")
        self._reserved += size

    def unreserve(self, size: int) -> None:
        """Gives up so many bytes that were reserved."""
        self._reserved -= size

    def release(self, held: Held) -> None:
        """One connection uses the model no longer; the last frees it."""
        held.users -= 1
        if held.users == 0:
            self._held.pop(held.content, None)
            self._known = {asked: content for asked, content in self._known.items() if content != held.content}

    def _add(self, model: "PreTrainedModel", asked: str | None) -> Held:
        content = content_hash(model)
        if asked is not None:
            self._known[asked] = content
        held = self._held.get(content)
        if held is None:
            held = self._held[content] = Held(model.to(self.device), content, held_bytes(model))  # type: ignore[arg-type]
        return self._counted(held)

    @contextmanager
    def _room(self, size: int) -> Iterator[None]:
        """So many bytes are reserved within the block."""
        self.reserve(size)
        try:
            yield
        finally:
            self.unreserve(size)

    def _taken(self, held: Held | None) -> Held | None:
        return None if held is None else self._counted(held)

    def _counted(self, held: Held) -> Held:
        held.users += 1
        return held
