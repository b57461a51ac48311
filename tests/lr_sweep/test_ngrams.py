import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lr_sweep.training_runs import VOCABULARY, write_tokens
from plumbline.lr_sweep import ngrams
from plumbline.lr_sweep.baselines import BaselinesSpec, baselines
from plumbline.lr_sweep.ngrams import Counts, window_losses
from plumbline.lr_sweep.training.data import open_tokens, validation_rows


def grams(tokens, order):
    return Counter(tuple(tokens[place : place + order]) for place in range(len(tokens) - order + 1))


@given(st.lists(st.integers(0, 4), min_size=6, max_size=80), st.lists(st.integers(0, 4), min_size=4, max_size=4))
def test_probabilities_are_those_of_a_plain_loop_and_add_up_to_one(training, start):
    one, two, three = (grams(training, order) for order in (1, 2, 3))
    rows = np.array([[*start[:3], last] for last in range(5)])
    counts = Counts.of(np.array(training, "<u2"), rows, 5)
    before, word = tuple(start[1:3]), range(5)
    unigram = [(one[(w,)] + 1) / (len(training) + 5) for w in word]
    bigram = [(two[(before[1], w)] + 0.1) / (one[(before[1],)] + 0.5) for w in word]
    pair = [(two[(before[1], w)] + 3 * unigram[w]) / (one[(before[1],)] + 3) for w in word]
    triple = [(three[(*before, w)] + 2 * pair[w]) / (two[before] + 2) for w in word]
    np.testing.assert_allclose(counts.unigram()[:, 2], unigram)
    np.testing.assert_allclose(counts.bigram()[:, 2], bigram)
    np.testing.assert_allclose(counts.interpolated(3, 2)[:, 2], triple)
    assert sum(unigram) == pytest.approx(1)


def test_first_target_of_a_window_is_predicted_from_the_one_token_before_it():
    training = np.array([0, 1, 2, 0, 1, 3, 1, 2], "<u2")
    counts = Counts.of(training, np.array([[1, 2, 0]]), 4)
    first = (2 + 3 * counts.unigram()[0, 0]) / (3 + 3)
    assert counts.interpolated(3, 2)[0, 0] == pytest.approx(first)


def test_counting_in_chunks_changes_nothing(monkeypatch):
    draw = np.random.default_rng(0)
    training, rows = draw.integers(9, size=500).astype("<u2"), draw.integers(9, size=(4, 7))
    whole = Counts.of(training, rows, 9)
    monkeypatch.setattr(ngrams, "CHUNK", 7)
    parts = Counts.of(training, rows, 9)
    for name in ("word", "context", "pair", "context_pair", "triple"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_table_of_the_right_order_is_best_and_near_the_entropy_of_its_source():
    draw = np.random.default_rng(0)
    follower = draw.permutation(64).reshape(8, 8) % 8
    tokens = [0, 1]
    for _ in range(40_000):
        tokens.append(int(draw.integers(8)) if draw.random() < 0.2 else int(follower[tokens[-2], tokens[-1]]))
    held_out = np.array(tokens[36_000:], "<u2")
    losses, _ = window_losses(np.array(tokens[:36_000], "<u2"), validation_rows(held_out, context=100), 8)
    entropy = -0.825 * math.log(0.825) - 7 * 0.025 * math.log(0.025)
    means = {name: values.mean() for name, values in losses.items()}
    assert means["trigram"] < means["bigram"] - 0.1 < means["unigram"]
    assert means["trigram"] == pytest.approx(entropy, abs=0.06)


def test_stage_scores_all_validation_windows_of_the_trials(tmp_path):
    tokens = write_tokens(tmp_path / "tokens")
    baselines(BaselinesSpec(code="", inputs="", context=8), tokens / "meta.json", tmp_path / "baselines.json")
    found = json.loads((tmp_path / "baselines.json").read_text())
    assert found["windows"] == (400 - 1) // 8
    assert set(found["models"]) == {"unigram", "bigram", "trigram"}
    rows = validation_rows(open_tokens(tokens).validation, context=8)
    expected, _ = window_losses(open_tokens(tokens).train, rows, VOCABULARY)
    for name, model in found["models"].items():
        values = expected[name]
        assert model["nats"] == pytest.approx(values.mean())
        assert model["standard_error"] == pytest.approx(values.std(ddof=1) / math.sqrt(len(values)))
        assert len(model["window_losses"]) == found["windows"]
