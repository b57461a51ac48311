"""Stage `throughput.reference`: the tokens that every engine must generate."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.core.files import atomic
from plumbline.core.plan.target import Spec
from plumbline.core.run.device import memory_errors, torch_device
from plumbline.core.run.progress import Progress
from plumbline.core.run.record import Outcome
from plumbline.core.run.stage import stage
from plumbline.throughput.measurement.autotune import check_dtype
from plumbline.throughput.measurement.prompts import prompts
from plumbline.throughput.measurement.settings import Dtype
from plumbline.throughput.models.load import load_transformers
from plumbline.throughput.models.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS = 512
"""Prompts per call, at first."""

log = logging.getLogger("plumbline")


class ReferenceSpec(Spec):
    """What decides a reference, besides the variant and the text."""

    variant: str
    shapes: list[tuple[int, int, int]]
    """(largest batch, prompt length, longest generation) for each prompt length."""
    dtype: Dtype
    seed: int


class NotFiniteError(Exception):
    """A logit is NaN or infinite."""


@stage
def reference(spec: ReferenceSpec, manifest: Path, text: Path, output: Path, device: str = "auto") -> None:
    """Writes `p{P}` for each prompt length P: tokens int64 (largest batch, longest generation) from `generate`.

    `p{P}.margin`, float32 of the same shape, is the difference of the two best logits at each token. The metadata has
    outcome and message: if the outcome is not ok (the manifest's, or invalid_output), there are no tensors.
    """
    on = torch_device(device)
    check_dtype(spec.dtype, on)
    variant = read_manifest(manifest)
    _check_context(spec, variant)
    outcome, message, tensors = variant.outcome, variant.message, dict[str, Tensor]()
    if outcome is Outcome.OK:
        try:
            tensors = _tensors(spec, variant, text, on)
        except NotFiniteError as error:
            outcome, message = Outcome.INVALID_OUTPUT, str(error)
    metadata = {"outcome": outcome.value, "message": message or "", "dtype": spec.dtype, "device": on.type}
    with atomic(output) as partial:
        save_file(tensors, partial, metadata=metadata)


def _check_context(spec: ReferenceSpec, variant: Manifest) -> None:
    """Raises UserError for a grid beyond the model's context, which the plan can only check for local folders."""
    context = variant.shapes and variant.shapes.context
    for _, prompt, generated in spec.shapes:
        if context and prompt + generated > context:
            raise UserError(
                f"throughput.grid: prompt {prompt} + generated {generated} is more than the context of {context} tokens"
                f" of {variant.variant} ({variant.folder}); lower prompt or generated"
            )


def _tensors(spec: ReferenceSpec, variant: Manifest, text: Path, device: torch.device) -> dict[str, Tensor]:
    model = load_transformers(variant, getattr(torch, spec.dtype), device)
    vocabulary = model.config.get_text_config().vocab_size
    found: dict[str, Tensor] = {}
    for batch, prompt, count in spec.shapes:
        rows = prompts(text, vocabulary, batch, prompt, spec.seed)
        tokens, margins = greedy(model, rows, count)
        found |= {f"p{prompt}": tokens, f"p{prompt}.margin": margins}
    return found


def greedy(model: "PreTrainedModel", rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` tokens that transformers generates after `rows` (batch, prompt), and their margins, both on the CPU.

    Processes as many rows at a time as memory allows, halving them whenever it runs out. Raises NotFiniteError for
    logits that are not finite, MemoryError when a single row does not fit.
    """
    parts: list[tuple[Tensor, Tensor]] = []
    size = ROWS
    with Progress(len(rows), "prompts") as progress:
        while progress.done < len(rows):
            chunk = rows[progress.done : progress.done + size]
            try:
                with memory_errors():
                    parts.append(_generated(model, chunk, count))
            except MemoryError:
                if len(chunk) == 1:
                    raise
                size = len(chunk) // 2
            else:
                progress.advance(len(chunk))
                continue
            log.info("out of memory: trying %d prompts at a time", size)
            if model.device.type == "cuda":
                torch.cuda.empty_cache()
    return torch.cat([tokens for tokens, _ in parts]), torch.cat([margins for _, margins in parts])


@torch.inference_mode()
def _generated(model: Any, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Tokens (rows, count) int64 and margins (rows, count) float32, on the CPU."""
    from transformers import GenerationConfig, LogitsProcessorList

    margins: list[Tensor] = []

    def record_margin(_: Tensor, logits: Tensor) -> Tensor:
        if not bool(logits.isfinite().all()):
            raise NotFiniteError(f"the logits are not finite at token {len(margins)}")
        best = logits.float().topk(2).values
        margins.append((best[:, 0] - best[:, 1]).cpu())
        return logits

    tokens = model.generate(
        rows.to(model.device),
        attention_mask=torch.ones_like(rows, device=model.device),
        generation_config=GenerationConfig(max_new_tokens=count, do_sample=False, use_cache=True),
        logits_processor=LogitsProcessorList([record_margin]),
    )
    return tokens[:, rows.shape[1] :].cpu().contiguous(), torch.stack(margins, dim=1)


if __name__ == "__main__":
    reference.main()
