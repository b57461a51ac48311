"""Which arithmetic a run uses: bf16 autocast, TF32, a compiled model, fused AdamW; each setting is auto, on or off.

`auto` turns a switch on when a short probe on this machine finds it clearly faster and just as accurate. Margin and
tolerance are much wider than the noise of the probe, so all trials of a sweep decide the same way. The record keeps
each decision and its reason.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.core.errors import UserError
from plumbline.core.settings import Settings
from plumbline.core.training.adamw import AdamW
from plumbline.lr_sweep.record import SwitchDecision
from plumbline.lr_sweep.settings import ModelSettings, TrainingSettings
from plumbline.lr_sweep.training.data import Tokens, TrainingWindows
from plumbline.lr_sweep.training.model import Transformer, flops_per_token

SWITCHES = {"tf32": "tf32", "bf16": "precision", "fused": "fused", "compile": "compile"}
"""Switch -> the setting that controls it."""
MARGIN = 1.25
"""A switch must be this many times faster to be turned on."""
TOLERANCE = 0.05
"""Largest relative error of a gradient; the choice of the batch alone changes a gradient by about 1."""
COMPILING_SECONDS = 40.0
"""Compiling takes at least this long; a run that cannot win it back is not compiled even as a test."""
MIN_BUDGET_SECONDS = {"cpu": 0.3, "cuda": 5.0}
MAX_BUDGET_SECONDS = 30.0
BUDGET_SHARE = 1e-3
ASSUMED_FLOPS_PER_SECOND = {"cpu": 2e10, "cuda": 5e13}
"""Used only to size the probe: what a modest core or GPU reaches on small matrices."""

Steps = list[Callable[[], list[Tensor]]]


class ComputeConfig(Settings):
    """The arithmetic of a run."""

    bf16: bool = False
    tf32: bool = False
    fused: bool = False
    compile: bool = False
    decisions: dict[str, SwitchDecision] = {}

    def arithmetic(self, device: torch.device) -> AbstractContextManager[Any]:
        """Sets the matmul precision of this process; returns the context that a forward pass runs in."""
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        return torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext()


def autotune(model: ModelSettings, training: TrainingSettings, tokens: Tokens, device: torch.device) -> ComputeConfig:
    """The arithmetic for this model on this device. Draws nothing from torch's global generator.

    Raises UserError when a setting asks for something that the device cannot do.
    """
    decisions: dict[str, SwitchDecision] = {}
    config = ComputeConfig()
    probe: Probe | None = None
    for switch, setting in SWITCHES.items():
        asked = getattr(training, setting)
        unsupported = _unsupported(switch, device)
        if asked == "on" and unsupported:
            raise UserError(f"lr_sweep.training.{setting}: on, but {unsupported}; set it to auto or off")
        if asked != "auto":
            decision = SwitchDecision(asked=asked, chosen=asked == "on", why=f"set to {asked}")
        elif unsupported:
            decision = SwitchDecision(asked=asked, chosen=False, why=unsupported)
        else:
            probe = probe or Probe(model, training, tokens, device)
            decision = probe.decide(switch, config)
        decisions[switch] = decision
        config = config.model_copy(update={switch: decision.chosen})
    torch.set_float32_matmul_precision("highest")
    return config.model_copy(update={"decisions": decisions})


def _unsupported(switch: str, device: torch.device) -> str | None:
    """Why the device cannot use the switch; None when it can."""
    if switch == "tf32" and device.type != "cuda":
        return "only a GPU has TF32"
    if switch == "tf32" and torch.cuda.get_device_capability(device) < (8, 0):
        return "this GPU has no TF32"
    if switch == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "this GPU has no bf16"
    return None


class Probe:
    """Times a few passes of the model, on as few tokens as the time budget asks for."""

    def __init__(self, model: ModelSettings, training: TrainingSettings, tokens: Tokens, device: torch.device) -> None:
        self.training, self.device = training, device
        # CPU time of the one thread, without waiting for a core: other processes must not affect the decision
        single = device.type == "cpu" and torch.get_num_threads() == 1
        self.clock = time.thread_time if single else time.perf_counter
        per_token = flops_per_token(model) / ASSUMED_FLOPS_PER_SECOND[device.type]
        self.tokens_per_step = training.batch * model.context
        run_seconds = per_token * self.tokens_per_step * training.steps
        self.budget = min(max(BUDGET_SHARE * run_seconds, MIN_BUDGET_SECONDS[device.type]), MAX_BUDGET_SECONDS)
        count = min(max(int(0.1 * self.budget / per_token), 16), self.tokens_per_step)
        length = min(count, model.context)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            self.model = Transformer(model).to(device)
        sizes = {"batch": count // length, "context": length}
        self.inputs, self.targets = TrainingWindows(tokens.train, seed=0, device=device, **sizes).draw()
        self.weights = list(self.model.parameters())

    def decide(self, switch: str, config: ComputeConfig) -> SwitchDecision:
        """Whether to turn `switch` on in addition to what `config` has on already."""
        if switch == "compile":
            return self._decide_compile(config)
        configs = [config, config.model_copy(update={switch: True})]
        if switch == "fused":
            steps = [self._optimizer_step(each.fused) for each in configs]
        else:
            steps = [self._pass(each) for each in configs]
        return self._compared(steps)

    def _compared(self, steps: Steps) -> SwitchDecision:
        """The decision between two steps, without and with a switch. Their first call also warms them up."""
        error = _relative_error(*(step() for step in steps))
        off, on = self._interleaved(steps)
        accurate, faster = error <= TOLERANCE, off >= MARGIN * on
        why = f"{off / on:.2f} × as fast, relative error {error:.2g}"
        why = why if accurate and faster else f"not {'faster' if accurate else 'as accurate'}: {why}"
        measured = {"off_seconds": off, "on_seconds": on, "relative_error": error}
        return SwitchDecision(
            asked="auto", chosen=accurate and faster, why=why, probe_tokens=self.inputs.numel(), **measured
        )

    def _decide_compile(self, config: ComputeConfig) -> SwitchDecision:
        plain = self._pass(config)
        plain()
        share = self.inputs.numel() / self.tokens_per_step
        run_seconds = self._seconds(plain) / share * self.training.steps
        if run_seconds < 2 * COMPILING_SECONDS:
            why = f"does not pay: the run takes about {run_seconds:.0f} s, compiling {COMPILING_SECONDS:.0f} s or more"
            return SwitchDecision(asked="auto", chosen=False, why=why, run_seconds=run_seconds)
        compiled = self._pass(config, torch.compile(self.model))
        try:
            compiling = self._seconds(compiled)
        except RuntimeError as error:  # no compiler on this machine, or a graph that it cannot compile
            why = f"compiling failed: {str(error).strip().partition(chr(10))[0]}"
            return SwitchDecision(asked="auto", chosen=False, why=why)
        decision = self._compared([plain, compiled])
        assert decision.off_seconds is not None
        assert decision.on_seconds is not None
        saved = (decision.off_seconds - decision.on_seconds) / share * self.training.steps
        update: dict[str, object] = {"compile_seconds": compiling, "saved_seconds": saved}
        if decision.chosen and saved < compiling:
            update |= {"chosen": False, "why": f"does not pay: compiling {compiling:.0f} s, saved {saved:.0f} s"}
        return decision.model_copy(update=update)

    def _pass(self, config: ComputeConfig, model: Callable[..., Tensor] | None = None) -> Callable[[], list[Tensor]]:
        """Forward and backward pass; returns the gradients."""
        compute = self.model if model is None else model

        def step() -> list[Tensor]:
            with config.arithmetic(self.device):
                loss = compute(self.inputs, self.targets)
            return list(torch.autograd.grad(loss, self.weights))

        return step

    def _optimizer_step(self, fused: bool) -> Callable[[], list[Tensor]]:
        """An AdamW step on a copy of the weights; returns how far they have moved."""
        copies = [nn.Parameter(weight.detach().clone()) for weight in self.weights]
        for copy, gradient in zip(copies, self._pass(ComputeConfig())(), strict=True):
            copy.grad = gradient
        training = self.training
        betas = {"beta1": training.beta1, "beta2": training.beta2}
        optimizer = AdamW(copies, weight_decay=training.weight_decay, fused=fused, spare_vectors=True, **betas)

        def step() -> list[Tensor]:
            optimizer.step(1e-3)
            return [copy.detach() - weight.detach() for copy, weight in zip(copies, self.weights, strict=True)]

        return step

    def _interleaved(self, steps: Steps) -> list[float]:
        """Shortest time of each step, called in turn: at least twice, at most ten times, a quarter of the budget."""
        began = time.perf_counter()
        seconds = [[self._seconds(step) for step in steps] for _ in range(2)]
        while len(seconds) < 10 and time.perf_counter() - began < 0.25 * self.budget:
            seconds.append([self._seconds(step) for step in steps])
        return [min(times) for times in zip(*seconds, strict=True)]

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
