"""The classifier of canonical tokens: runs trained at once are runs trained alone, and it learns what it should."""

import numpy as np
import pytest
import torch
from torch import nn

from plumbline.ablation.classifier.result import RunResult
from plumbline.ablation.classifier.splits import rotating_splits
from plumbline.ablation.classifier.transformer import FEW_TOKENS, encode, fit_transformer, initial_parameters
from plumbline.ablation.settings import TransformerSettings

WIDTH, TOKENS, CLASSES, ROWS = 5, 6, 3, 300
SETTINGS = TransformerSettings(width=16, heads=2, layers=2, epochs=12, batch_size=16)
LABELS = np.arange(ROWS) % CLASSES


def features(*, turned: bool) -> np.ndarray:
    """Two tokens that give the class, each alone or, where both are turned at random, only together; else noise."""
    random = np.random.default_rng(0)
    table = random.standard_normal((ROWS, TOKENS, WIDTH)) * (not turned)
    turn = random.choice([-1, 1], ROWS) if turned else np.ones(ROWS)
    table[:, 1, 0], table[:, 4, 0] = 3 * turn, 3 * turn * (LABELS - 1)
    return table.reshape(ROWS, -1).astype(np.float32)


def fit(table: np.ndarray, runs: int, which: slice = slice(None), **changes: int) -> list[RunResult]:
    splits = rotating_splits(LABELS, np.arange(ROWS), runs=runs, seed=0)[which]
    settings = SETTINGS.model_copy(update=changes)
    seeds = list(range(runs))[which]
    return fit_transformer(table, LABELS, splits, CLASSES, settings, seeds, WIDTH, torch.device("cpu"), lambda: None)


def test_a_run_does_not_depend_on_those_trained_beside_it():
    table = features(turned=False)
    together, alone = fit(table, 5)[3], fit(table, 5, slice(3, 4))[0]
    assert together.predicted == alone.predicted
    np.testing.assert_allclose(together.curves.train_loss, alone.curves.train_loss, rtol=1e-4)


def test_classes_that_only_two_tokens_together_tell_apart_are_learned():
    accuracy = [run.test.accuracy for run in fit(features(turned=True), 3, epochs=40)]
    assert np.mean(accuracy) > 0.8


def test_labels_without_any_relation_to_the_tokens_stay_at_chance():
    random = np.random.default_rng(1)
    table = random.standard_normal((ROWS, TOKENS * WIDTH)).astype(np.float32)
    accuracy = [run.test.accuracy for run in fit(table, 5)]
    assert 0.2 < np.mean(accuracy) < 0.47


def test_record_has_the_best_validation_epoch_and_one_value_of_each_curve_per_epoch():
    for run in fit(features(turned=False), 2):
        curve = run.curves.validation_accuracy
        assert len(curve) == len(run.curves.train_loss) == run.epochs == SETTINGS.epochs
        assert run.best_epoch == 1 + int(np.argmax(curve))
        assert run.validation.accuracy == pytest.approx(max(curve))


@pytest.mark.parametrize("tokens", [TOKENS, FEW_TOKENS, FEW_TOKENS + 1])
def test_encoder_is_torchs_own_encoder_layer_by_layer(tokens):
    """nn.TransformerEncoderLayer, pre-norm, with the same weights."""
    generator = torch.Generator().manual_seed(0)
    parameters = {
        name: tensor[None] for name, tensor in initial_parameters(WIDTH, tokens, CLASSES, SETTINGS, generator).items()
    }
    parameters = {
        name: tensor + 0.1 * torch.rand(tensor.shape, generator=generator) for name, tensor in parameters.items()
    }
    x = torch.randn(1, 7, tokens, WIDTH, generator=generator)
    hidden = x[0] @ parameters["embed"][0] + parameters["embed.bias"][0] + parameters["position"][0, 0]
    for layer in range(SETTINGS.layers):
        theirs = nn.TransformerEncoderLayer(
            SETTINGS.width, SETTINGS.heads, 4 * SETTINGS.width, 0.0, "gelu", batch_first=True, norm_first=True
        ).eval()
        pairs = {
            theirs.self_attn.in_proj_weight: "attend",
            theirs.self_attn.out_proj.weight: "join",
            theirs.linear1.weight: "widen",
            theirs.linear2.weight: "narrow",
        }
        biases = {
            theirs.self_attn.in_proj_bias: "attend",
            theirs.self_attn.out_proj.bias: "join",
            theirs.linear1.bias: "widen",
            theirs.linear2.bias: "narrow",
        }
        with torch.no_grad():
            for tensor, name in pairs.items():
                tensor.copy_(parameters[f"{layer}.{name}"][0].T)
            for tensor, name in biases.items():
                tensor.copy_(parameters[f"{layer}.{name}.bias"][0, 0])
            theirs.norm1.weight.copy_(parameters[f"{layer}.first.gain"].flatten())
            theirs.norm2.weight.copy_(parameters[f"{layer}.second.gain"].flatten())
            hidden = theirs(hidden)
    last = nn.functional.layer_norm(hidden, hidden.shape[-1:]) * parameters["last.gain"].flatten()
    expected = last.mean(1) @ parameters["score"][0] + parameters["score.bias"][0]
    torch.testing.assert_close(encode(parameters, x, SETTINGS)[0], expected, rtol=1e-4, atol=1e-5)
