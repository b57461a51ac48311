"""What a program computes in this process, and whether what comes from elsewhere is the same."""

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.disaggregation.runtime.planning.schedule import LOGITS, TOKEN
from plumbline.disaggregation.workloads.interface import Program

TOLERANCE = {torch.float32: (1e-4, 1e-5), torch.bfloat16: (5e-2, 5e-2)}
"""Of what a variant returns against local: relative to each value, and to the largest, or 1 where none is as large."""


@torch.inference_mode()
def computed(program: Program, module: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All that `module`, one of the program's, returns, by name."""
    made = module(**inputs)
    return dict(zip(program.outputs, made if isinstance(made, tuple) else (made,), strict=True))


def local(program: Program, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The wanted outputs, on the CPU: the variant `local`."""
    found = computed(program, program.local, inputs)
    return {name: found[name].cpu() for name in program.wanted}


def expected(program: Program, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All outputs, on the CPU, and the token where there are logits."""
    return with_token({name: one.cpu() for name, one in computed(program, program.module, inputs).items()})


def with_token(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The greedy token as well, where logits came back: then the client chooses."""
    return outputs | {TOKEN: outputs[LOGITS][:, -1].argmax(-1)} if LOGITS in outputs else outputs


def timed(name: str, run: Callable[[], dict[str, Tensor]], wanted: Mapping[str, Tensor]) -> float:
    """Seconds of one turn. Raises OutcomeError for other outputs than `wanted`, unless that is empty."""
    began = time.perf_counter()
    outputs = with_token(run())
    seconds = time.perf_counter() - began
    if wanted and not outputs:
        raise OutcomeError(Outcome.INVALID_OUTPUT, f"{name} returns nothing")
    for key, value in outputs.items() if wanted else ():
        check(f"{name}: {key}", value, wanted[key], is_logits=key == LOGITS)
    return seconds


def check(what: str, value: Tensor, wanted: Tensor, *, is_logits: bool = False) -> None:
    """Raises OutcomeError unless the value is the wanted one; of logits, the last position suffices."""
    if is_logits and value.shape[1] == 1:
        wanted = wanted[:, -1:]
    if value.shape != wanted.shape:
        raise OutcomeError(Outcome.INVALID_OUTPUT, f"{what} has the shape {list(value.shape)}")
    if not is_close(value, wanted):
        raise OutcomeError(Outcome.INVALID_OUTPUT, f"{what} is not what local computes")


def is_close(value: Tensor, wanted: Tensor) -> bool:
    """Whether a variant returns the wanted values: integers equal, others within the tolerance of their type.

    Sums in another order differ by rounding errors of the size of the largest, also where their result is near 0.
    """
    if value.shape != wanted.shape or not value.is_floating_point():
        return torch.equal(value, wanted)
    relative, absolute = TOLERANCE[value.dtype]
    if not bool(wanted.isfinite().all()):
        return False
    largest = float(wanted.abs().max().clamp(min=1)) if wanted.numel() and value.dtype is torch.float32 else 1.0
    return torch.allclose(value, wanted, rtol=relative, atol=absolute * largest)
