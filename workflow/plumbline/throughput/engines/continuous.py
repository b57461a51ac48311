"""transformers' continuous batching, with its paged cache."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from plumbline.throughput.engines.generate import Generate
from plumbline.throughput.engines.interface import Shape
from plumbline.throughput.measurement.counted import Counted
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.manifest import Manifest

PREFILL_TOKENS = 512
"""Largest number of prompt tokens per step; its mask over the whole cache is built at once."""
SMALLEST_PAGE = 4
POLL_SECONDS = 1.0


class Continuous(Generate):
    """Keeps one manager open from call to call, with one cache page per row.

    By default each call builds a new manager whose cache takes 60% of the free memory: seconds on the CPU.
    """

    def __init__(self, manifest: Manifest, device: torch.device, config: EngineConfig, shape: Shape) -> None:
        super().__init__(manifest, device, config, shape)
        from transformers import ContinuousBatchingConfig, GenerationConfig

        sizes = ContinuousBatchingConfig(
            page_size=max(SMALLEST_PAGE, shape.prompt + shape.generated),
            num_blocks=shape.batch,
            max_batch_tokens=max(shape.batch, min(shape.batch * shape.prompt, PREFILL_TOKENS)),
            max_requests_per_batch=shape.batch,
            max_blocks_per_request=0,  # the only kernel for single tokens is flash attention's
            allow_block_sharing=False,  # equal prompts count as work too
            use_async_batching=False,
            use_cuda_graph=False,
            auto_switch_to_flash=False,
        )
        self._manager = self._model.init_continuous_batching(  # type: ignore[operator]
            GenerationConfig(eos_token_id=-1, pad_token_id=0, do_sample=False), sizes
        )
        # The manager's thread inherits `daemon`; otherwise a process that ends with an error would wait for it forever.
        starter = threading.Thread(target=self._manager.start, daemon=True)
        starter.start()
        starter.join()

    def generate(self, prompts: Tensor, count: int, on_token: Callable[[], None] | None = None) -> Tensor:
        names = self._manager.add_requests(prompts.tolist(), max_new_tokens=count, streaming=on_token is not None)
        lengths = dict.fromkeys(names, 0)
        rows: dict[str, list[int]] = {}
        shortest = 0
        while len(rows) < len(names):
            output = self._manager.get_result(timeout=POLL_SECONDS)
            if output is None:
                self._check()
                continue
            if output.error is not None:
                self._check()
                raise RuntimeError(f"continuous batching failed: {output.error}")
            if on_token is not None:
                lengths[output.request_id] += 1
                if min(lengths.values()) > shortest:
                    shortest += 1
                    on_token()
            if output.is_finished():
                rows[output.request_id] = output.generated_tokens
        return torch.tensor([rows[name] for name in names])

    def logits(self, prompts: Tensor) -> Tensor:
        with self._not_paged():
            return super().logits(prompts)

    def count_step(self, prompts: Tensor, count: int) -> Counted:
        with self._not_paged():
            return super().count_step(prompts, count)

    def close(self) -> None:
        self._manager.stop(block=True)
        self._manager.destroy()
        del self._manager
        super().close()

    @contextmanager
    def _not_paged(self) -> Iterator[None]:
        paged = self._model.config._attn_implementation
        with self._manager.pause():
            self._model.set_attn_implementation(self._config.attention)
            try:
                yield
            finally:
                self._model.set_attn_implementation(paged)

    def _check(self) -> None:
        """Raises the error that ended the manager's thread, if it ended."""
        if self._manager.background_thread_status.fatal_error is not None:
            raise self._manager.background_thread_status.fatal_error
        if not self._manager.is_running():
            raise RuntimeError("continuous batching stopped without an error")


ENGINE = Continuous
