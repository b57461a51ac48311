"""llama.cpp by the package xllamacpp, whose interface is llama.cpp's server, here in this process."""

import math
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.throughput.engines.interface import BUILT_IN, DTYPES, Engine, Shape, converted, package, unavailable
from plumbline.throughput.formats.llama_cpp import FILE, token_ids
from plumbline.throughput.measurement.memory import free_bytes
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.manifest import Manifest, Shapes
from plumbline.throughput.models.weights import read_config, step_weights

NAME = "llama_cpp"
MOST_ROWS = 256
"""LLAMA_MAX_SEQ, the number of sequences that llama.cpp is compiled for."""
PAD = 256
"""llama.cpp rounds the cache of each row up to a multiple of this many tokens."""
ALL_LAYERS = 1_000
PROMPT_TOKENS = 512
"""Largest number of prompt tokens that llama.cpp reads at once."""
OVERHEAD_BYTES = 2**28
"""Stacks and heaps of llama.cpp's threads, and its buffers; 200 MB of address space were seen."""


class LlamaCpp(Engine):
    """All rows are one request, each in a slot of its own; llama.cpp decodes the slots as one batch.

    A call includes what the server does for it: a queue, JSON, and the text of each token.
    """

    attentions = BUILT_IN
    allocates_with_torch = False

    @classmethod
    def prepare(cls, manifest: Manifest) -> None:
        with package(NAME):
            import xllamacpp  # noqa: F401

    def __init__(self, manifest: Manifest, device: torch.device, config: EngineConfig, shape: Shape) -> None:
        self.prepare(manifest)
        import xllamacpp

        if shape.batch > MOST_ROWS:
            raise unavailable(f"engine {NAME} takes at most {MOST_ROWS} rows, not {shape.batch}")
        if device.type == "cuda" and all(each["name"] == "CPU" for each in xllamacpp.get_device_info()):
            raise unavailable(f"engine {NAME}: this build of xllamacpp has no CUDA; install its CUDA wheel")
        self._weights = step_weights(Path(manifest.folder), DTYPES[config.dtype], manifest.unused)
        self._vocabulary = read_config(Path(manifest.folder))["vocab_size"]
        file = converted(manifest, NAME, config.dtype) / FILE
        length = PAD * math.ceil((shape.prompt + shape.generated) / PAD)
        parameters = _parameters(xllamacpp, file, config, shape.batch, length)
        parameters.n_gpu_layers = ALL_LAYERS if device.type == "cuda" else 0
        needed = file.stat().st_size + _working_bytes(manifest.shapes, shape.batch, length, config.dtype)
        if needed > (room := free_bytes(device)):  # it would end the process
            raise MemoryError(f"llama.cpp needs about {needed:,} bytes, and {room:,} are free")
        self._server: Any = xllamacpp.Server(parameters)

    def generate(self, prompts: Tensor, count: int, on_token: Callable[[], None] | None = None) -> Tensor:
        rows = [""] * len(prompts)
        seen = [0] * len(prompts)
        reported = 0

        def take(part: Any) -> None:
            nonlocal reported
            for choice in part["choices"] if part else ():
                rows[choice["index"]] += choice["text"]
                seen[choice["index"]] += len(token_ids(choice["text"]))
            while on_token and reported < min(seen):
                reported += 1
                on_token()

        request = {"prompt": prompts.tolist(), "max_tokens": count}
        if on_token:
            self._complete(request | {"stream": True}, take)
        else:
            take(self._complete(request))
        return torch.tensor([token_ids(row) for row in rows])

    def logits(self, prompts: Tensor) -> Tensor:
        found = torch.full((len(prompts), self._vocabulary), torch.nan)
        for row, prompt in zip(found, prompts.tolist(), strict=True):  # one by one: it is a long answer
            answer = self._complete({"prompt": prompt, "max_tokens": 1, "logprobs": self._vocabulary})
            likely = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            known = [(each["id"], each["logprob"]) for each in likely if each["logprob"] is not None]
            row[torch.tensor([token for token, _ in known], dtype=torch.long)] = torch.tensor([p for _, p in known])
        return found

    def weights(self) -> list[Tensor]:
        return self._weights

    def close(self) -> None:
        self._complete({"prompt": [0], "max_tokens": 1})  # one that has had no request yet would not end
        del self._server

    def _complete(self, request: dict[str, Any], take: Callable[[Any], None] | None = None) -> Any:
        """The server's answer; its parts go to `take` instead, if given. Raises RuntimeError when it has none."""
        errors: list[Any] = []

        def part(answer: Any) -> None:  # what is raised here is lost
            if answer and "error" in answer:
                errors.append(answer["error"])
            elif take:
                take(answer)

        greedy = {"samplers": ["top_k"], "top_k": 1, "cache_prompt": False}  # equal prompts count as work too
        answer = self._server.handle_completions({**request, **greedy}, *([part] if take else []))
        if not take:
            part(answer)
        if errors:
            raise RuntimeError(f"llama.cpp answers: {errors[0]}")
        return answer


def _parameters(xllamacpp: Any, file: Path, config: EngineConfig, rows: int, length: int) -> Any:
    """llama.cpp's parameters for `rows` rows of `length` tokens; what would save work from call to call is off."""
    found = xllamacpp.CommonParams()
    found.model.path = str(file)
    found.n_parallel, found.n_ctx = rows, rows * length
    found.cpuparams.n_threads = found.cpuparams_batch.n_threads = config.threads
    kind = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[config.dtype]
    found.cache_type_k = found.cache_type_v = xllamacpp.ggml_type[f"GGML_TYPE_{kind}"]
    # Its fused attention rounds to half precision, which changes tokens.
    found.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    found.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE  # read into memory: mapped pages may be elsewhere
    found.fit_params = found.warmup = found.cache_prompt = found.cache_idle_slots = False
    found.cache_ram_mib = found.n_ctx_checkpoints = 0
    found.slot_prompt_similarity = 0.0
    found.n_threads_http = 1  # no one asks from outside; by default one for each slot
    found.api_keys = [secrets.token_hex()]  # it listens on a port of the loopback interface, where anyone could ask
    found.verbosity = -1
    return found


def _working_bytes(shapes: Shapes | None, rows: int, length: int, dtype: str) -> int:
    """Keys and values of `rows` rows of `length` tokens, logits of a prompt, and threads."""
    if shapes is None:
        return OVERHEAD_BYTES
    cache = 2 * shapes.layers * shapes.kv_heads * shapes.head_size * rows * length * DTYPES[dtype].itemsize
    return cache + 4 * PROMPT_TOKENS * shapes.vocabulary + OVERHEAD_BYTES


ENGINE = LlamaCpp
