"""The peer of bench_training: GPT-2 and its training step as nanoGPT (karpathy/nanoGPT, model.py, train.py) has them.

Written after its published form, in plain torch: pre-norm blocks with LayerNorm, one projection for queries, keys and
values, torch's fused attention, GELU, learned positions, a head tied to the embedding, no biases, no dropout. The step
is torch.optim.AdamW, fused on a GPU only, with clip_grad_norm_ and a batch stacked window by window.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plumbline.lr_sweep.settings import ModelSettings


class Block(nn.Module):
    """Attention and MLP, each with a norm before it and a residual connection around it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)
        self.c_fc = nn.Linear(width, 4 * width, bias=False)
        self.mlp_proj = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).split(width, dim=2)
        q, k, v = (each.view(batch, length, self.heads, width // self.heads).transpose(1, 2) for each in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(mixed.transpose(1, 2).contiguous().view(batch, length, width))
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x))))


class GPT(nn.Module):
    """Tokens and targets (B, T) -> mean cross-entropy in nats."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.wte = nn.Embedding(settings.vocabulary, settings.width)
        self.wpe = nn.Embedding(settings.context, settings.width)
        self.h = nn.ModuleList(Block(settings.width, settings.heads) for _ in range(settings.layers))
        self.ln_f = nn.LayerNorm(settings.width, bias=False)
        self.lm_head = nn.Linear(settings.width, settings.vocabulary, bias=False)
        self.wte.weight = self.lm_head.weight
        for name, weight in self.named_parameters():
            if weight.dim() >= 2:
                shrink = math.sqrt(2 * settings.layers) if name.endswith("proj.weight") else 1.0
                nn.init.normal_(weight, std=0.02 / shrink)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)


def flops_per_token(settings: ModelSettings) -> int:
    """Floating-point operations of training on one token, by the formula of `lr_sweep.training.model`."""
    multiplied = settings.layers * 12 * settings.width**2 + settings.vocabulary * settings.width
    return 6 * multiplied + 12 * settings.layers * settings.width * settings.context


class NanoGptLoop:
    """The step of train.py: eager, or compiled with `torch.compile`."""

    def __init__(
        self, settings: ModelSettings, tokens: np.ndarray, batch: int, device: torch.device, *, compiled: bool = False
    ) -> None:
        self.settings, self.tokens, self.batch_size, self.device = settings, tokens, batch, device
        torch.manual_seed(0)
        self.model = GPT(settings).to(device)
        decayed = [weight for weight in self.model.parameters() if weight.dim() >= 2]
        others = [weight for weight in self.model.parameters() if weight.dim() < 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        on_gpu = device.type == "cuda"
        more: dict[str, Any] = {"fused": True} if on_gpu else {}
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), **more)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=on_gpu)
        self.compute = torch.compile(self.model) if compiled else self.model
        self.next_batch = self.batch()
        self.step = 0

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, int64 (batch, context) each."""
        context = self.settings.context
        starts = torch.randint(len(self.tokens) - context, (self.batch_size,))
        x = torch.stack([torch.from_numpy(self.tokens[i : i + context].astype(np.int64)) for i in starts])
        y = torch.stack([torch.from_numpy(self.tokens[i + 1 : i + 1 + context].astype(np.int64)) for i in starts])
        if self.device.type == "cuda":
            return x.pin_memory().to(self.device, non_blocking=True), y.pin_memory().to(self.device, non_blocking=True)
        return x, y

    def advance(self) -> None:
        """One step, and every ten steps the loss is read as for its log line."""
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-3
        with self.autocast:
            loss = self.compute(*self.next_batch)
        self.next_batch = self.batch()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.step % 10 == 0:
            loss.item()
