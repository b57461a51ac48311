"""vLLM, on GPUs, by its offline interface. Written after its documentation; not yet run by this project's tests."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from plumbline.core.errors import one_line
from plumbline.throughput.engines.interface import BUILT_IN, DTYPES, Engine, Shape, package, unavailable
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.models.weights import step_weights

NAME = "vllm"


class VLLM(Engine):
    """Does not tell when a token comes, so its trials have no latencies.

    Its cache takes what is free of 90% of the GPU's memory (vLLM's default), whatever the batch.
    """

    can_compile = True
    attentions = BUILT_IN

    @classmethod
    def prepare(cls, manifest: Manifest) -> None:
        # In this process, so that torch knows what is allocated and the trial's end is the engine's.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        with package(NAME, "vllm"):
            import vllm  # noqa: F401

    def __init__(self, manifest: Manifest, device: torch.device, config: EngineConfig, shape: Shape) -> None:
        self.prepare(manifest)
        if device.type != "cuda":
            raise unavailable(f"engine {NAME} needs a GPU, and the device is {device.type}")
        if manifest.layers:
            raise unavailable(f"engine {NAME} has no low-rank layers, as {manifest.variant} has")
        from vllm import LLM

        self._weights = step_weights(Path(manifest.folder), DTYPES[config.dtype], manifest.unused)
        try:
            self._model = LLM(
                model=manifest.folder,
                skip_tokenizer_init=True,
                trust_remote_code=False,
                generation_config="vllm",  # else it samples as the folder's configuration says
                dtype=config.dtype,
                max_model_len=shape.prompt + shape.generated,
                max_num_seqs=shape.batch,
                enforce_eager=not config.compile,
                enable_prefix_caching=False,  # equal prompts count as work too
                max_logprobs=-1,  # the whole vocabulary
                seed=0,
            )
        except ValueError as error:  # its word for too little free memory
            if "memory" in str(error):
                raise MemoryError(one_line(error)) from error
            raise

    def generate(self, prompts: Tensor, count: int, on_token: Callable[[], None] | None = None) -> Tensor:
        from vllm import SamplingParams

        # With min_tokens the logit of the end of text would be suppressed, and other tokens would come.
        greedy = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False)
        found = self._model.generate(_inputs(prompts), greedy, use_tqdm=False)
        return torch.tensor([list(row.outputs[0].token_ids) for row in found])

    def logits(self, prompts: Tensor) -> Tensor:
        from vllm import SamplingParams

        first = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, detokenize=False, logprobs=-1)
        rows = []
        for answer in self._model.generate(_inputs(prompts), first, use_tqdm=False):
            likely = answer.outputs[0].logprobs[0]
            rows.append([likely[token].logprob for token in range(len(likely))])
        return torch.tensor(rows)

    def weights(self) -> list[Tensor]:
        return self._weights

    def close(self) -> None:
        del self._model
        torch.cuda.empty_cache()


def _inputs(prompts: Tensor) -> list[dict[str, list[int]]]:
    """The prompts as vLLM's TokensPrompt, which is a dict."""
    return [{"prompt_token_ids": row} for row in prompts.tolist()]


ENGINE = VLLM
