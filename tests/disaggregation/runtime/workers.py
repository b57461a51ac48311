"""Workers in processes of their own, and small models for them."""

import os
import signal
import socket
import sys
import traceback
from contextlib import contextmanager

import torch

from disaggregation.runtime.pairs import SECRET
from plumbline.core.run.orphans import signal_at_death_of_parent
from plumbline.disaggregation.runtime.models.weights import Store
from plumbline.disaggregation.runtime.transport.protocol import Limits
from plumbline.disaggregation.runtime.worker import Worker

GPT2 = {
    "model_type": "gpt2",
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "vocab_size": 97,
    "initializer_range": 0.3,
} | {
    "bos_token_id": 96,
    "eos_token_id": 96,
}
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "vocab_size": 97,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
CONFIGS = {
    "gpt2": GPT2,
    "llama": SHAPE | {"model_type": "llama"},
    "qwen2": SHAPE | {"model_type": "qwen2"},
    "mistral": SHAPE | {"model_type": "mistral", "sliding_window": 8},
    "gemma": SHAPE | {"model_type": "gemma", "head_dim": 8},
}


class Forked:
    """A worker in a fork of this process."""

    def __init__(self, listening, folder=None, bounds=None, **limits):
        self.address = f"127.0.0.1:{listening.getsockname()[1]}"
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                signal_at_death_of_parent(signal.SIGKILL)
                torch.set_num_threads(1)
                Worker(listening, SECRET, Store(1 << 30, torch.device("cpu"), folder), Limits(**limits), bounds).run()
            except Exception:  # noqa: BLE001  the fork must not go on as the test
                traceback.print_exc()
            finally:
                os._exit(1)

    def send(self, number):
        os.kill(self.pid, number)


@contextmanager
def forked_worker(**more):
    """A worker at a free port of loopback; ended with the block."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        worker = Forked(listening, **more)
    try:
        yield worker
    finally:
        worker.send(signal.SIGKILL)
        os.waitpid(worker.pid, 0)
