"""The aten operations that a captured graph may hold: a closed list, looked up by name. No name leads to other code.

Left out is what writes into its inputs, what reads memory by strides, and what takes a tensor's values to the program
(`item`): a graph has no place for it.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from plumbline.disaggregation.runtime.models.weights import RefusedError
from plumbline.disaggregation.runtime.transport import buffers

GETITEM = "getitem"
"""Takes one of the outputs of an operation that has several."""
NAMES = frozenset(
    [
        "_native_batch_norm_legit_no_training.default",
        "_softmax.default",
        "_to_copy.default",
        "abs.default",
        "adaptive_avg_pool2d.default",
        "add.Scalar",
        "add.Tensor",
        "addmm.default",
        "alias.default",
        "amax.default",
        "arange.default",
        "arange.start",
        "arange.start_step",
        "argmax.default",
        "avg_pool2d.default",
        "baddbmm.default",
        "batch_norm.default",
        "bitwise_and.Tensor",
        "bitwise_not.default",
        "bitwise_or.Tensor",
        "bmm.default",
        "cat.default",
        "chunk.default",
        "clamp.default",
        "clone.default",
        "contiguous.default",
        "conv1d.default",
        "conv2d.default",
        "convolution.default",
        "cos.default",
        "cumsum.default",
        "diff.default",
        "div.Scalar",
        "div.Tensor",
        "dropout.default",
        "embedding.default",
        "eq.Scalar",
        "eq.Tensor",
        "erf.default",
        "exp.default",
        "expand.default",
        "flatten.using_ints",
        "full.default",
        "full_like.default",
        "ge.Scalar",
        "ge.Tensor",
        "gelu.default",
        "group_norm.default",
        "gt.Scalar",
        "gt.Tensor",
        "hardswish.default",
        "index.Tensor",
        "index_select.default",
        "layer_norm.default",
        "le.Scalar",
        "le.Tensor",
        "linear.default",
        "logical_and.default",
        "logical_not.default",
        "logical_or.default",
        "lt.Scalar",
        "lt.Tensor",
        "masked_fill.Scalar",
        "matmul.default",
        "max_pool2d.default",
        "maximum.default",
        "mean.default",
        "mean.dim",
        "minimum.default",
        "mm.default",
        "mul.Scalar",
        "mul.Tensor",
        "native_layer_norm.default",
        "ne.Scalar",
        "ne.Tensor",
        "neg.default",
        "new_ones.default",
        "ones.default",
        "ones_like.default",
        "permute.default",
        "pow.Tensor_Scalar",
        "reciprocal.default",
        "relu.default",
        "repeat.default",
        "reshape.default",
        "rms_norm.default",
        "rsqrt.default",
        "rsub.Scalar",
        "scaled_dot_product_attention.default",
        "select.int",
        "sigmoid.default",
        "silu.default",
        "sin.default",
        "slice.Tensor",
        "softmax.int",
        "split.Tensor",
        "split_with_sizes.default",
        "sqrt.default",
        "squeeze.dim",
        "squeeze.dims",
        "stack.default",
        "sub.Scalar",
        "sub.Tensor",
        "sum.dim_IntList",
        "t.default",
        "tanh.default",
        "to.dtype",
        "transpose.int",
        "tril.default",
        "triu.default",
        "unbind.int",
        "unsqueeze.default",
        "upsample_bicubic2d.vec",
        "upsample_bilinear2d.vec",
        "view.default",
        "where.self",
        "where.ScalarOther",
        "zeros.default",
        "zeros_like.default",
        "__and__.Tensor",
        "__or__.Tensor",
    ]
)
"""Operation and overload, below `torch.ops.aten`."""
MAKES_TENSORS = frozenset(
    f"aten.{name}"
    for name in ("arange.default", "arange.start", "arange.start_step", "full.default", "ones.default", "zeros.default")
)
"""Operations without a tensor to say which device: they are told."""
DTYPES = buffers.NAMES | {"bool": torch.bool}
MEMORY_FORMATS = {
    "contiguous": torch.contiguous_format,
    "preserve": torch.preserve_format,
    "channels_last": torch.channels_last,
}
MOST_NESTED = 4
"""Lists in lists, in an operation's arguments."""


def operation(name: str) -> Callable[..., Any]:
    """The operation of that name: `aten.linear.default`. Raises RefusedError for one that is not in the list."""
    if name == GETITEM:
        return operator.getitem
    space, _, rest = name.partition(".")
    if space != "aten" or rest not in NAMES:
        raise RefusedError(f"unknown operation {name[:80]!r}: a graph holds only aten operations of a closed list")
    packet, overload = rest.split(".")
    found: Callable[..., Any] = getattr(getattr(torch.ops.aten, packet), overload)
    return found


def encoded(value: Any, reference: Callable[[Any], dict[str, str] | None]) -> Any:
    """An argument as JSON. `reference` says what JSON a value of the graph becomes; None: it is a constant.

    Raises RefusedError for a constant that a graph cannot hold.
    """
    if (found := reference(value)) is not None:
        return found
    if isinstance(value, (list, tuple)):
        return [encoded(one, reference) for one in value]
    if isinstance(value, torch.dtype) and (name := str(value).removeprefix("torch.")) in DTYPES:
        return {"dtype": name}
    if isinstance(value, torch.device):
        return {"device": "here"}
    if isinstance(value, torch.memory_format):
        names = [name for name, one in MEMORY_FORMATS.items() if one is value]
        if names:
            return {"memory_format": names[0]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise RefusedError(f"a graph cannot hold the argument {value!r}")


@dataclass(frozen=True)
class Ref:
    """The value of that name, where an argument has its place."""

    name: str


def decoded(value: Any, device: torch.device, depth: int = 0) -> Any:
    """What `encoded` wrote, with a Ref for each value of the graph. Raises RefusedError for anything else."""
    if isinstance(value, list):
        if depth > MOST_NESTED:
            raise RefusedError("arguments are nested too deep")
        return [decoded(one, device, depth + 1) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise RefusedError(f"an argument {str(value)[:80]!r} is not known")
    (kind, given), *_ = value.items()
    match kind:
        case "ref":
            return Ref(given)
        case "dtype" if given in DTYPES:
            return DTYPES[given]
        case "device":
            return device
        case "memory_format" if given in MEMORY_FORMATS:
            return MEMORY_FORMATS[given]
        case "float" if given in ("inf", "-inf", "nan"):
            return float(given)
    raise RefusedError(f"an argument {str(value)[:80]!r} is not known")


def filled(value: Any, values: Mapping[str, Any]) -> Any:
    """A decoded argument with the values in place of their names."""
    if type(value) is Ref:
        return values[value.name]
    return [filled(one, values) for one in value] if type(value) is list else value


def references(value: Any) -> list[str]:
    """Names of the graph's values in an argument."""
    if isinstance(value, list):
        return [name for one in value for name in references(one)]
    if isinstance(value, dict):
        return [str(value["ref"])] if "ref" in value else []
    return []
