import math

import numpy as np
import pytest
import torch

from lr_sweep.training_runs import MODEL, TRAINING, write_tokens
from plumbline.core.measure.spans import SPANS
from plumbline.lr_sweep.settings import OperationSettings, TrainingSettings
from plumbline.lr_sweep.training.data import open_tokens
from plumbline.lr_sweep.training.loop import RunConfig, Trainer, learning_rate, train_model
from plumbline.lr_sweep.training.model import Transformer
from plumbline.lr_sweep.training.precision import ComputeConfig

CPU = torch.device("cpu")


def run_of(rate=0.02, seed=3, **training):
    return RunConfig(model=MODEL, training=TRAINING.model_copy(update=training), rate=rate, seed=seed, identity="{}")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return open_tokens(write_tokens(tmp_path_factory.mktemp("loop") / "tokens"))


@pytest.fixture(scope="module")
def trainer(tokens):
    return train_model(run_of(), tokens, CPU, OperationSettings(log_steps=5))


def reference_losses(run, tokens):
    """The same training by a plain loop over torch.optim, its schedule by torch's own schedulers."""
    training, context = run.training, run.model.context
    torch.manual_seed(run.seed)
    model = Transformer(run.model)
    groups = [
        {"params": [w for w in model.parameters() if w.dim() == 2], "weight_decay": training.weight_decay / run.rate},
        {"params": [w for w in model.parameters() if w.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=run.rate, betas=(training.beta1, training.beta2), foreach=False)
    warm, steps = training.warmup_steps, training.steps
    up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warm, 1.0, total_iters=warm - 1)
    low = run.rate * training.final_ratio
    down = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps - warm, eta_min=low)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [up, down], milestones=[warm - 1])
    draw = torch.Generator().manual_seed(run.seed)
    losses, rates = [], []
    for _ in range(steps):
        starts = torch.randint(len(tokens.train) - context, (training.batch,), generator=draw)
        windows = torch.stack([torch.from_numpy(tokens.train[s : s + context + 1].astype(np.int64)) for s in starts])
        logits = model(windows[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses, rates


def test_losses_and_rates_are_those_of_a_plain_loop_over_torch_optim(tokens):
    run = run_of(warmup_share=0.2)
    losses, rates = reference_losses(run, tokens)
    trainer = train_model(run, tokens, CPU, OperationSettings())
    np.testing.assert_allclose(trainer.losses, losses, rtol=1e-4)
    np.testing.assert_allclose([learning_rate(run, step) for step in range(run.training.steps)], rates, rtol=1e-6)
    assert losses[-1] < losses[0] - 0.1


def test_seconds_of_the_probe_are_named_and_hardly_any_are_left_over(tokens):
    seconds = train_model(run_of(fused="auto", steps=60), tokens, CPU, OperationSettings(log_steps=5)).spans.seconds
    assert seconds["autotune"] > 0
    assert seconds["other"] < 0.5 * seconds["autotune"]


@pytest.mark.parametrize("rate", [1e-3, 64.0])
def test_weight_decay_shrinks_matrices_by_the_same_share_at_any_learning_rate(tokens, rate):
    trainer = Trainer(run_of(rate=rate, weight_decay=0.1), tokens, CPU)
    trainer.prepare(ComputeConfig())
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    for weight in trainer.model.parameters():
        weight.grad = torch.zeros_like(weight)
    trainer.optimizer.step(rate)
    for old, new in zip(before, trainer.model.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old * (0.9 if old.dim() == 2 else 1.0))


@pytest.mark.parametrize(("steps", "warmup_share"), [(1, 0.05), (2, 0.0), (7, 0.5), (300, 0.05)])
def test_schedule_peaks_once_and_ends_exactly_at_the_last_step(steps, warmup_share):
    run = run_of(steps=steps, warmup_share=warmup_share)
    rates = [learning_rate(run, step) for step in range(steps)]
    assert max(rates) == pytest.approx(run.rate)
    assert rates.count(max(rates)) == 1
    if steps > 1:
        assert rates[-1] == pytest.approx(run.rate * TrainingSettings().final_ratio)


def test_spans_add_up_to_the_wall_time(tokens):
    import time

    began = time.perf_counter()
    trainer = train_model(run_of(), tokens, CPU, OperationSettings())
    trainer.spans.mark("other")
    wall = time.perf_counter() - began
    assert set(trainer.spans.seconds) == set(SPANS)
    assert min(trainer.spans.seconds.values()) >= 0
    assert trainer.spans.total == pytest.approx(wall, abs=0.05)


def test_there_is_a_row_at_each_interval_and_each_validation(trainer):
    assert [row["step"] for row in trainer.rows] == [0, 5, 8, 10, 15, 16, 20, 24]
    assert [row["step"] for row in trainer.rows if "val_loss" in row] == [0, 8, 16, 24]


def test_train_loss_of_a_row_is_the_mean_since_the_row_before(trainer):
    assert trainer.rows[2]["train_loss"] == pytest.approx(float(trainer.losses[5:8].mean()))


def test_rates_of_rows_are_work_over_time(trainer):
    rows = trainer.rows[1:]
    steps = np.diff([row["step"] for row in trainer.rows])
    seconds = sum(
        count * trainer.tokens_per_step / row["tokens_per_second"] for count, row in zip(steps, rows, strict=True)
    )
    assert seconds == pytest.approx(trainer.spans.training)
    assert sum(row["data_wait_seconds"] for row in rows) == pytest.approx(trainer.spans.seconds["data_wait"])


def test_validation_loss_is_the_mean_over_all_its_tokens(trainer):
    windows = [torch.cat(side) for side in zip(*trainer.validation, strict=True)]
    assert len(windows[0]) % TRAINING.batch  # the last batch is short, and must not count as much as the others
    with torch.no_grad():
        assert trainer.rows[-1]["val_loss"] == pytest.approx(trainer.model(*windows).item(), rel=1e-5)
    assert trainer.rows[-1]["val_perplexity"] == pytest.approx(math.exp(trainer.rows[-1]["val_loss"]))


def test_loss_that_is_not_finite_ends_the_run_at_the_next_validation(tokens):
    trainer = train_model(run_of(rate=1e25), tokens, CPU, OperationSettings())
    assert not trainer.finite
    assert trainer.step == TRAINING.validate_every
    assert not math.isfinite(trainer.rows[-1]["val_loss"])


def test_log_interval_does_not_change_the_weights(tokens, trainer):
    other = train_model(run_of(), tokens, CPU, OperationSettings(log_steps=1))
    for mine, theirs in zip(trainer.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_trials_of_one_seed_start_from_the_same_weights_whatever_their_rate(tokens, trainer):
    other = train_model(run_of(rate=0.3), tokens, CPU, OperationSettings())
    assert trainer.rows[0]["val_loss"] == other.rows[0]["val_loss"]
    assert float(trainer.losses[0]) == float(other.losses[0])
