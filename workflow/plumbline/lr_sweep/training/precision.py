"""Which arithmetic a run uses: bf16 autocast, TF32, a compiled model, fused AdamW; each asked for as auto, on or off.

`auto` takes a switch when a short probe on this machine finds it faster by a clear margin and as accurate. Margin and
tolerance are wide of what the probe sees, so that trials of one sweep choose alike. What was chosen, and why, is kept.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.core.errors import UserError
from plumbline.core.settings import Settings
from plumbline.lr_sweep.settings import ModelSettings, TrainingSettings
from plumbline.lr_sweep.training.adamw import AdamW
from plumbline.lr_sweep.training.data import Tokens, TrainingWindows
from plumbline.lr_sweep.training.model import Transformer, flops_per_token

SWITCHES = {"tf32": "tf32", "bf16": "precision", "fused": "fused", "compile": "compile"}
"""Choice -> the setting that asks for it."""
MARGIN = 1.25
"""How many times as fast a switch must be to be taken."""
TOLERANCE = 0.05
"""Largest relative error of a gradient: the draw of the batch moves it by about as much as itself."""
COMPILING_SECONDS = 40.0
"""What compiling costs at the least; a run that cannot win this back is not compiled even to see."""
LEAST_BUDGET_SECONDS = {"cpu": 0.3, "cuda": 5.0}
LARGEST_BUDGET_SECONDS = 30.0
BUDGET_SHARE = 1e-3
ASSUMED_FLOPS_PER_SECOND = {"cpu": 2e10, "cuda": 5e13}
"""Only to size the probe: what a modest core or GPU reaches on small matrices."""


class Choices(Settings):
    """What a run computes with."""

    bf16: bool = False
    tf32: bool = False
    fused: bool = False
    compile: bool = False
    found: dict[str, dict[str, Any]] = {}
    """By switch: what was asked, what was chosen, why, and the probe's figures."""

    def arithmetic(self, device: torch.device) -> AbstractContextManager[Any]:
        """Sets the matmul precision of this process and returns the context that a forward pass runs in."""
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        return torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext()


def choose(model: ModelSettings, training: TrainingSettings, tokens: Tokens, device: torch.device) -> Choices:
    """What to compute with. Draws nothing from torch's global generator.

    Raises UserError when a setting asks for what the device cannot do.
    """
    chosen: dict[str, Any] = dict.fromkeys(SWITCHES, False)
    found: dict[str, dict[str, Any]] = {}
    probe: Probe | None = None
    for switch, setting in SWITCHES.items():
        asked = getattr(training, setting)
        lack = _lack(switch, device)
        if asked == "on" and lack:
            raise UserError(f"training.{setting}: on, but {lack}; set it to auto or off")
        if asked != "auto":
            chosen[switch], finding = asked == "on", {"why": f"asked: {asked}"}
        elif lack:
            finding = {"why": lack}
        else:
            probe = probe or Probe(model, training, tokens, device)
            chosen[switch], finding = probe.try_out(switch, Choices(**chosen))
        found[switch] = {"asked": asked, "chosen": chosen[switch], **finding}
    torch.set_float32_matmul_precision("highest")
    return Choices(**chosen, found=found)


def _lack(switch: str, device: torch.device) -> str | None:
    """Why the device has no use for the switch."""
    if switch == "tf32" and device.type != "cuda":
        return "only a GPU has TF32"
    if switch == "tf32" and torch.cuda.get_device_capability(device) < (8, 0):
        return "this GPU has no TF32"
    if switch == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "this GPU has no bf16"
    return None


class Probe:
    """A few passes of the model on few enough tokens for the time there is."""

    def __init__(self, model: ModelSettings, training: TrainingSettings, tokens: Tokens, device: torch.device) -> None:
        self.training, self.device = training, device
        # what one thread computed, and not how long it waited for a core: neighbours must not decide the choice
        alone = device.type == "cpu" and torch.get_num_threads() == 1
        self.clock = time.thread_time if alone else time.perf_counter
        per_token = flops_per_token(model) / ASSUMED_FLOPS_PER_SECOND[device.type]
        self.tokens_per_step = training.batch * model.context
        run_seconds = per_token * self.tokens_per_step * training.steps
        least = LEAST_BUDGET_SECONDS[device.type]
        self.budget = min(max(BUDGET_SHARE * run_seconds, least), max(LARGEST_BUDGET_SECONDS, least))
        count = min(max(int(0.1 * self.budget / per_token), 16), self.tokens_per_step)
        length = min(count, model.context)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            self.model = Transformer(model).to(device)
        sizes = {"batch": count // length, "context": length}
        self.inputs, self.targets = TrainingWindows(tokens.train, seed=0, device=device, **sizes).draw()
        self.weights = list(self.model.parameters())

    def try_out(self, switch: str, choices: Choices) -> tuple[bool, dict[str, Any]]:
        """Whether to turn the switch on beside what is chosen already, and the figures that say so."""
        if switch == "compile":
            return self._try_compile(choices)
        ways = [choices, choices.model_copy(update={switch: True})]
        if switch == "fused":
            steps = [self._optimizer_step(way.fused) for way in ways]
        else:
            steps = [self._pass(way) for way in ways]
        errors, seconds = self._results(steps), self._interleaved(steps)
        return self._judge(_relative_error(*errors), *seconds)

    def _judge(self, error: float, off: float, on: float) -> tuple[bool, dict[str, Any]]:
        figures = {"off_seconds": off, "on_seconds": on, "relative_error": error, "probe_tokens": self.inputs.numel()}
        if not error <= TOLERANCE:
            return False, {"why": f"not as accurate: relative error {error:.2g}", **figures}
        if off < MARGIN * on:
            return False, {"why": f"not faster: {off / on:.2f} × as fast, {MARGIN:g} asked", **figures}
        return True, {"why": f"{off / on:.2f} × as fast, relative error {error:.2g}", **figures}

    def _try_compile(self, choices: Choices) -> tuple[bool, dict[str, Any]]:
        plain = self._pass(choices)
        plain()
        share = self.inputs.numel() / self.tokens_per_step
        run_seconds = self._seconds(plain) / share * self.training.steps
        if run_seconds < 2 * COMPILING_SECONDS:
            why = f"does not pay: the run takes some {run_seconds:.0f} s, compiling {COMPILING_SECONDS:.0f} s or more"
            return False, {"why": why, "run_seconds": run_seconds}
        fast = self._pass(choices, torch.compile(self.model))
        try:
            compiling = self._seconds(fast)
        except RuntimeError as error:  # no compiler on this machine, or a graph that it cannot take
            return False, {"why": f"compiling failed: {str(error).strip().partition(chr(10))[0]}"}
        steps = [plain, fast]
        taken, finding = self._judge(_relative_error(*self._results(steps)), *self._interleaved(steps))
        saved = (finding["off_seconds"] - finding["on_seconds"]) / share * self.training.steps
        finding |= {"compile_seconds": compiling, "saved_seconds": saved}
        if taken and saved < compiling:
            return False, {**finding, "why": f"does not pay: compiling {compiling:.0f} s, saved {saved:.0f} s"}
        return taken, finding

    def _pass(self, way: Choices, model: Callable[..., Tensor] | None = None) -> Callable[[], list[Tensor]]:
        """Forward and backward; gives the gradients."""
        compute = self.model if model is None else model

        def step() -> list[Tensor]:
            with way.arithmetic(self.device):
                loss = compute(self.inputs, self.targets)
            return list(torch.autograd.grad(loss, self.weights))

        return step

    def _optimizer_step(self, fused: bool) -> Callable[[], list[Tensor]]:
        """An AdamW step on a copy of the weights; gives how far they have moved."""
        copies = [nn.Parameter(weight.detach().clone()) for weight in self.weights]
        for copy, gradient in zip(copies, self._pass(Choices())(), strict=True):
            copy.grad = gradient
        training = self.training
        betas = {"beta1": training.beta1, "beta2": training.beta2}
        optimizer = AdamW(copies, weight_decay=training.weight_decay, fused=fused, **betas)

        def step() -> list[Tensor]:
            optimizer.step(1e-3)
            return [copy.detach() - weight.detach() for copy, weight in zip(copies, self.weights, strict=True)]

        return step

    def _results(self, steps: list[Callable[[], list[Tensor]]]) -> list[list[Tensor]]:
        """What each way gives at its first call, which also warms it up."""
        return [step() for step in steps]

    def _interleaved(self, steps: list[Callable[[], list[Tensor]]]) -> list[float]:
        """Least seconds of each way over calls in turn: at least two, at most ten, a quarter of the budget."""
        began = time.perf_counter()
        seconds = [[self._seconds(step) for step in steps] for _ in range(2)]
        while len(seconds) < 10 and time.perf_counter() - began < 0.25 * self.budget:
            seconds.append([self._seconds(step) for step in steps])
        return [min(way) for way in zip(*seconds, strict=True)]

    def _seconds(self, step: Callable[[], list[Tensor]]) -> float:
        self._wait()
        began = self.clock()
        step()
        self._wait()
        return self.clock() - began

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _relative_error(reference: list[Tensor], other: list[Tensor]) -> float:
    """‖other − reference‖ / ‖reference‖ over all tensors together."""
    difference = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(reference, other, strict=True))
    size = sum(float(a.double().square().sum()) for a in reference)
    return (difference / size) ** 0.5
