"""The training of one rank: epochs of steps, validation, translations, results a file each, checkpoints."""

import hashlib
import logging
import math
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from plumbline.core.errors import UserError
from plumbline.core.files import write_json
from plumbline.core.measure.spans import TRAINING_SPANS, Spans
from plumbline.core.run.checkpoint import load_checkpoint, save_checkpoint
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.data_parallel.methods.interface import WHOLE, memory_bytes, replica
from plumbline.data_parallel.ranks.rank import Rank, StopAskedError
from plumbline.data_parallel.record import RankEpoch
from plumbline.data_parallel.settings import ModelSettings, OperationSettings, TrainingSettings
from plumbline.data_parallel.training.data import Indices, Tokens, batches, collate, in_batches, shard
from plumbline.data_parallel.training.learner import Learner
from plumbline.data_parallel.training.model import SummedLoss, gpt2
from plumbline.data_parallel.training.translate import BATCH, bleu, translate

PROBED_STEPS = 4
"""Steps whose backward pass is repeated with and without synchronisation after each epoch."""
COUNTS = ("steps", "sequences", "tokens", "padded_tokens", "target_tokens")
log = logging.getLogger("plumbline")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that decides a trial, and where it keeps its files."""

    model: ModelSettings
    training: TrainingSettings
    operation: OperationSettings
    method: str
    batch: int
    """Sequences per step over all ranks."""
    seed: int
    identity: str
    """The trial's spec as JSON: only its own checkpoint is resumed."""
    checkpoint: Path
    results: Path
    """Folder of the files that ranks write after each epoch."""


class Trainer:
    """A rank in training, and what it has measured in this epoch."""

    def __init__(self, run: Run, tokens: Tokens, tokenizer: Tokenizer, rank: Rank) -> None:
        self.run, self.tokens, self.tokenizer, self.rank = run, tokens, tokenizer, rank
        self.train = tokens.splits["train"]
        self.lengths, self.targets = self.train.lengths, self.train.targets
        # every rank draws the same weights; the group's first rank broadcasts its own all the same
        model = gpt2(run.model, tokens.vocabulary, tokens.end_of_target, run.seed, rank.device)
        group = dist.group.WORLD if rank.world > 1 else None
        self.replica = replica(run.method, SummedLoss(model), group)
        self.learner = Learner(
            self.replica, run.training, self.train, rank=rank.rank, device=rank.device, beat=rank.slot.beat
        )
        self.spans: Spans = self.learner.spans
        self.evaluated = gpt2(run.model, tokens.vocabulary, tokens.end_of_target, run.seed, rank.device)
        self.epoch = self.step = self.total_steps = self.restarts = 0
        self.losses = torch.zeros((), dtype=torch.float64, device=rank.device)
        self.counts = dict.fromkeys(COUNTS, 0)
        self.saved_at = time.monotonic()
        torch.manual_seed(run.seed * 1_000_003 + rank.rank)  # dropout differs between ranks

    def train_to_the_end(self) -> bool:
        """Trains until the last epoch, from a checkpoint where there is one; False when it was asked to stop."""
        self.resume()
        while self.epoch < self.run.training.epochs:
            order = batches(self.lengths, batch=self.run.batch, seed=self.run.seed, epoch=self.epoch)
            while self.step < len(order):
                agreed = self.starts_agreeing()
                self.advance(order[self.step])
                if self.stops(*agreed()):
                    return False
            self.finish_epoch(order)
        return True

    def advance(self, batch: Indices) -> None:
        """One step."""
        self.rank.slot.beat(self.total_steps)
        self.losses += self.learner.step(batch, self.total_steps)
        share = shard(batch, self.lengths, self.rank.rank, self.rank.world)
        own = self.lengths[share]
        padded = sum(
            len(part) * (int(self.lengths[part].max()) - 1) - int((self.lengths[part] - 1).sum())
            for part in np.array_split(share, self.run.training.accumulation)
            if len(part)
        )
        for name, more in zip(
            COUNTS, (1, len(share), int(own.sum()), padded, int(self.targets[share].sum())), strict=True
        ):
            self.counts[name] += more
        self.step += 1
        self.total_steps += 1
        self.rank.slot.beat(self.total_steps)

    def starts_agreeing(self) -> Callable[[], list[int]]:
        """Whether to stop, as any rank's signal asks, and to save, as rank 0's clock does; agreed while a step runs."""
        due = self.rank.rank == 0 and time.monotonic() - self.saved_at >= self.run.operation.checkpoint_seconds
        return self.rank.agreeing(self.rank.asked_to_stop, due)

    def stops(self, stop: int, save: int) -> bool:
        """Saves if either was asked for; whether to stop."""
        self.spans.mark("other")
        if stop or save:
            self.save()
        if stop:
            self.rank.asked_to_stop = True
            log.info("asked to stop: saved after step %d", self.total_steps)
        return bool(stop)

    def finish_epoch(self, order: list[Indices]) -> None:
        """Validates, translates, writes this rank's results, and saves."""
        self.spans.settle()
        spent, random = dict(self.spans.seconds), self.random_states()
        communication = self.communication_seconds(order)
        training_loss = self.total(float(self.losses)) / self.total(self.counts["target_tokens"])
        if not math.isfinite(training_loss):
            raise OutcomeError(Outcome.DIVERGED, f"the loss of epoch {self.epoch} is not finite")
        began = time.perf_counter()
        self.load_evaluated()
        self.rank.slot.beat()
        try:
            validation = self.validation_loss()
            if not math.isfinite(validation):
                raise OutcomeError(Outcome.DIVERGED, f"the validation loss of epoch {self.epoch} is not finite")
            file = f"rank{self.rank.rank}_gen_epoch{self.epoch}"
            score, _ = self.score("validation", self.run.training.translated, file)
        except StopAskedError:  # the next start validates again, after the same random numbers
            self.restore_random(random)
            self.stops(True, True)
            raise
        validated = time.perf_counter() - began
        seconds = sum(spent[span] for span in (*TRAINING_SPANS, "other"))
        counts: Any = self.counts
        found = RankEpoch(
            rank=self.rank.rank,
            world=self.rank.world,
            epoch=self.epoch,
            training_time=seconds,
            tokens_per_sec=self.counts["tokens"] / seconds,
            training_loss=training_loss,
            validation_loss=validation,
            bleu=score,
            **counts,
            data_seconds=spent["data_wait"],
            forward_seconds=spent["forward"],
            backward_seconds=spent["backward"],
            communication_seconds=communication,
            optimizer_seconds=spent["optimizer"],
            control_seconds=spent["other"],
            validation_seconds=validated,
            checkpoint_seconds=spent["checkpoint"],
        )
        path = self.run.results / f"rank{self.rank.rank}_results_epoch{self.epoch}.json"
        write_json(path, found.model_dump(mode="json", by_alias=True))
        if self.rank.rank == 0:
            log.info("epoch %d: validation loss %.3f, BLEU %.1f, %.1f s", self.epoch, validation, score, seconds)
        self.epoch, self.step = self.epoch + 1, 0
        self.losses.zero_()
        self.counts = dict.fromkeys(COUNTS, 0)
        self.save()
        self.learner.spans = self.spans = Spans(self.rank.device)

    def communication_seconds(self, order: list[Indices]) -> float | None:
        """What synchronisation adds to the epoch's backward passes; negative where that is less than the noise.

        A few batches of the epoch run again now, each with and without it, and their mean difference stands for every
        step: the gradients that travel are as large for each batch.
        """
        if self.rank.world == 1:
            return 0.0
        if not self.replica.forgets:
            return None
        added = []
        for batch in order[:PROBED_STEPS]:
            seconds = {}
            for synchronised in (True, False):
                dist.barrier(group=self.rank.control)  # ranks start a step together, as in training
                seconds[synchronised] = self.learner.backward_seconds(batch, synchronised=synchronised)
            added.append(seconds[True] - seconds[False])
            self.rank.slot.beat()
        return sum(added) / len(added) * self.counts["steps"]

    def total(self, value: float) -> float:
        """The sum over ranks."""
        return math.fsum(self.rank.gathered(value))

    def load_evaluated(self) -> None:
        """Gives the model that validates and translates the weights of now."""
        prefix = "model."
        weights = {name.removeprefix(prefix): value for name, value in self.replica.full_weights().items()}
        self.evaluated.load_state_dict(weights)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Nats per target token over the validation split, which the ranks share."""
        split = self.tokens.splits["validation"]
        loss, summed = SummedLoss(self.evaluated), torch.zeros((), dtype=torch.float64, device=self.rank.device)
        self.evaluated.eval()
        for rows in in_batches(len(split), self.run.batch):
            part = shard(rows, split.lengths, self.rank.rank, self.rank.world)
            if len(part):
                summed += loss(*collate(split, part, self.rank.device))
            self.rank.slot.beat()
            self.rank.stop_if_asked()
        return self.total(float(summed)) / int(split.targets.sum())

    def score(self, name: str, most: int | None, file: str) -> tuple[float, str]:
        """BLEU over the first `most` sentences of a split, which the ranks share, and its signature.

        This rank's translations are written to `file`.
        """
        split, texts = self.tokens.splits[name], self.tokens.texts[name]
        count = len(split) if most is None else min(most, len(split))
        own = shard(np.arange(count), split.lengths, self.rank.rank, self.rank.world)
        made: list[str] = []
        for part in np.array_split(own, math.ceil(count / self.rank.world / BATCH)):  # as many parts on every rank
            made += translate(
                self.evaluated,
                self.tokenizer,
                split,
                part,
                end=self.tokens.end_of_target,
                longest=self.run.training.longest_translation,
                on_batch=self.rank.slot.beat,
            )
            self.rank.stop_if_asked()
        rows = [
            {
                "number": int(index),
                **{side: texts[side][int(index)] for side in ("source", "target")},
                "translation": text,
            }
            for index, text in zip(own, made, strict=True)
        ]
        write_json(self.run.results / f"{file}.json", rows)
        everything = sorted((row["number"], row["translation"]) for rows in self.rank.gathered(rows) for row in rows)
        return bleu([text for _, text in everything], texts["target"][:count])

    def translations(self) -> tuple[dict[str, Any], str]:
        """BLEU of each split that is translated, beside that of copying the source; and the signature."""
        found, signature = {}, ""
        for name, texts in self.tokens.texts.items():
            score, signature = self.score(name, None, f"rank{self.rank.rank}_gen_{name}")
            copied, _ = bleu(texts["source"], texts["target"])
            found[name] = {"sentences": len(texts["source"]), "bleu": score, "copied_bleu": copied}
        return found, signature

    def measurements(self) -> dict[str, Any]:
        """What the record holds of a finished trial, apart from its epochs; called by every rank."""
        self.load_evaluated()
        translations, signature = self.translations()
        weights = self.evaluated.state_dict()
        digest = hashlib.sha256()
        for name in sorted(weights):
            digest.update(weights[name].cpu().contiguous().numpy().tobytes())
        memory = memory_bytes(self.replica, self.learner.optimizer)
        if self.rank.device.type == "cuda":
            memory["peak_gpu"] = torch.cuda.max_memory_allocated(self.rank.device)
        else:
            memory["peak_rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        parameters = sum(parameter.numel() for parameter in self.evaluated.parameters())
        return {
            "translations": translations,
            "bleu_signature": signature,
            "parameters": parameters,
            "weights_sha256": digest.hexdigest(),
            "wire_bytes_per_step": self.replica.wire_bytes(self.run.training.accumulation),
            "memory_bytes": memory,
            "restarts": self.restarts,
        }

    def random_states(self) -> dict[str, torch.Tensor | None]:
        """The state of this rank's generators, on the CPU and on its GPU."""
        on_gpu = torch.cuda.get_rng_state() if self.rank.device.type == "cuda" else None
        return {"random": torch.get_rng_state(), "random_gpu": on_gpu}

    def restore_random(self, states: Mapping[str, Any]) -> None:
        """Puts the generators back to such a state."""
        torch.set_rng_state(states["random"])
        if states["random_gpu"] is not None:
            torch.cuda.set_rng_state(states["random_gpu"])

    def save(self) -> None:
        """Writes the state of all ranks, whole or not at all; by rank 0."""
        self.spans.settle()
        model, optimizer = get_state_dict(self.replica.module, self.learner.optimizer, options=WHOLE)
        own = {
            **self.random_states(),
            "losses": self.losses.cpu(),
            "counts": self.counts,
            "spans": dict(self.spans.seconds),
        }
        ranks = self.rank.gathered(own)
        if self.rank.rank == 0:
            position = {"epoch": self.epoch, "step": self.step, "total_steps": self.total_steps}
            state = {"model": model, "optimizer": optimizer, "ranks": ranks, "restarts": self.restarts, **position}
            save_checkpoint(self.run.checkpoint, self.run.identity, state)
        dist.barrier(group=self.rank.control)  # no rank goes on, or away, before the state is on the disk
        self.saved_at = time.monotonic()
        self.spans.mark("checkpoint")
        self.rank.slot.beat()

    def resume(self) -> bool:
        """Restores the state; False when there is none. Raises UserError when it is not a checkpoint."""
        state = load_checkpoint(self.run.checkpoint, self.run.identity)
        found = self.rank.gathered(state is not None)
        if len(set(found)) > 1:
            missing = [rank for rank, there in enumerate(found) if not there]
            raise UserError(f"{self.run.checkpoint}: ranks {missing} do not see it; `results` must be on a shared disk")
        if state is None:
            return False
        set_state_dict(
            self.replica.module,
            self.learner.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=WHOLE,
        )
        own = state["ranks"][self.rank.rank]
        self.restore_random(own)
        self.losses = own["losses"].to(self.rank.device)
        self.counts = own["counts"]
        if state["step"]:  # at an epoch's end its results are written, and the next one's time starts at zero
            self.spans.take_up(own["spans"])
        self.epoch, self.step, self.total_steps = state["epoch"], state["step"], state["total_steps"]
        self.restarts = state["restarts"] + 1
        self.spans.mark("other")
        log.info("resumed after step %d", self.total_steps)
        return True
