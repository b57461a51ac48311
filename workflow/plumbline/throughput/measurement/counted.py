"""What a transformers model reads and computes in a decode step, counted while it generates."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

COUNTED_STEPS = 8
"""Largest number of steps whose operations are counted: they differ where each token chooses its experts."""
CACHES = ("past_key_values", "cache_params")
"""What models call their cache, as an argument and in their output."""


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """FLOPs of attention by the shapes of `query` (rows, heads, tokens, size), `key` and `value`, with any heads."""
    rows, heads, tokens, size = query
    return int(2 * rows * heads * tokens * key[-2] * (size + value[-1]))


FUSED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
"""Attention kernels whose FLOPs torch does not know."""


class Counted(NamedTuple):
    """Means over the decode steps of a call."""

    weight_bytes: float
    """Bytes of the parameters that a step reads: of an embedding the rows it looks up, of experts those it chooses."""
    cache_bytes: float
    """Bytes of keys, values and other state that a step reads."""
    flops: float
    """Floating-point operations of matrix products and attention."""
    last_cache_bytes: int
    """Bytes of the cache after the last step."""


def count_steps(model: nn.Module, generate: Callable[[], object], steps: int) -> Counted:
    """What the decode steps of `generate`, a prefill and `steps` further calls of the `model`, read and compute.

    Experts are run one by one meanwhile, since a grouped product does not say which it reads.
    """
    counting = _Counting(model, steps)
    handles = [
        model.register_forward_pre_hook(counting.begin),
        model.register_forward_hook(counting.end, with_kwargs=True),
    ]
    try:
        with _expert_by_expert(model):
            generate()
    finally:
        for handle in handles:
            handle.remove()
    return counting.result()


class _Counting:
    """Hooks around the model's forward pass."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        self._parameters = list(model.parameters())
        self._counted = set(torch.linspace(1, steps, min(steps, COUNTED_STEPS)).round().int().tolist())
        self._steps = 0
        self._weights: list[int] = []
        self._flops: list[int] = []
        self._caches: list[int] = []
        self._modes: tuple[_Reads, FlopCounterMode] | None = None

    def begin(self, *_: Any) -> None:
        if self._steps in self._counted:
            self._modes = _Reads(self._parameters), FlopCounterMode(display=False, custom_mapping=FUSED)
            for mode in self._modes:
                mode.__enter__()

    def end(self, _: nn.Module, __: Any, named: dict[str, Any], output: Any) -> None:
        if self._modes is not None:
            reads, flops = self._modes
            flops.__exit__(None, None, None)
            reads.__exit__(None, None, None)
            self._weights.append(reads.bytes())
            self._flops.append(flops.get_total_flops())
            self._modes = None
        if self._steps:
            caches = (named.get(name) or getattr(output, name, None) for name in CACHES)
            self._caches.append(sum(cache_bytes(cache) for cache in caches if cache is not None))
        self._steps += 1

    def result(self) -> Counted:
        return Counted(
            weight_bytes=sum(self._weights) / len(self._weights),
            cache_bytes=sum(self._caches) / len(self._caches),
            flops=sum(self._flops) / len(self._flops),
            last_cache_bytes=self._caches[-1],
        )


class _Reads(TorchDispatchMode):
    """Notes which bytes of some parameters the operations read."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__()
        self._ranges: dict[int, list[tuple[int, int]]] = {each.untyped_storage().data_ptr(): [] for each in parameters}

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = op(*args, **(kwargs or {}))
        views = {self._storage(each) for each in tree_leaves(found) if isinstance(each, Tensor)}
        for each in tree_leaves((args, kwargs)):
            if isinstance(each, Tensor) and self._storage(each) in self._ranges.keys() - views:
                self._ranges[self._storage(each)] += _read(op, each, args, found)
        return found

    def bytes(self) -> int:
        """Bytes read, each once."""
        return sum(_union(ranges) for ranges in self._ranges.values())

    @staticmethod
    def _storage(tensor: Tensor) -> int:
        return tensor.untyped_storage().data_ptr()


def _read(op: Any, tensor: Tensor, args: Any, found: Any) -> Iterator[tuple[int, int]]:
    """First and last byte, exclusive, of what `op` reads of a parameter: rows that it looks up, or the whole view."""
    name, size = op.overloadpacket.__name__, tensor.element_size()
    start = int(tensor.storage_offset()) * size
    rows = {"embedding": 1, "index_select": 2}.get(name)
    if rows is not None and len(args) > rows and args[0] is tensor and tensor.dim() == 2:
        width = int(tensor.stride(0)) * size
        yield from ((start + width * row, start + width * (row + 1)) for row in args[rows].unique().tolist())
    elif name in ("index", "gather") and isinstance(found, Tensor):
        yield start, start + min(tensor.nbytes, found.nbytes)
    else:
        extent = 1 + sum(
            int(length - 1) * int(stride) for length, stride in zip(tensor.shape, tensor.stride(), strict=True)
        )
        yield start, start + extent * size


def _union(ranges: list[tuple[int, int]]) -> int:
    """Number of bytes in any of `ranges`."""
    total = end = 0
    for start, stop in sorted(ranges):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total


def cache_bytes(cache: Any) -> int:
    """Bytes of state in a cache of transformers, of any kind: what a step reads that has just written its own part."""
    return sum(_state_bytes(part) for part in getattr(cache, "layers", None) or [cache])


def _state_bytes(layer: Any) -> int:
    """Bytes of a layer's state. One with a sliding window reads a token more than it keeps for the next step."""
    found = sum({id(each): each.nbytes for each in _tensors(layer) if each.is_floating_point()}.values())
    window = getattr(layer, "sliding_window", None)
    kept = getattr(layer, "keys", None)
    if window and kept is not None and kept.dim() == 4 and layer.get_seq_length() >= window and kept.shape[-2] < window:
        return found // kept.shape[-2] * (kept.shape[-2] + 1)
    return found


def _tensors(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """The tensors in an object, its lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif depth < 4:
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
        if inside is None and type(value).__module__.startswith("transformers"):
            inside = vars(value).values()
        for each in inside or ():
            yield from _tensors(each, depth + 1)


@contextmanager
def _expert_by_expert(model: Any) -> Iterator[None]:
    if not model._can_set_experts_implementation():
        yield
        return
    before = model.get_experts_implementation()
    model.set_experts_implementation("eager")
    try:
        yield
    finally:
        model.set_experts_implementation(before)
