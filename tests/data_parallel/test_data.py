"""Order, shards and batches: every sequence is trained on once, whatever the number of ranks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plumbline.data_parallel.ranks.compare import typical, whole_batches
from plumbline.data_parallel.training.data import Sequences, batches, collate, micro_batches, shard


def sequences(count: int, seed: int = 0, longest: int = 12) -> Sequences:
    random = np.random.default_rng(seed)
    lengths = random.integers(3, longest, count)
    prompts = np.array([random.integers(1, length) for length in lengths])
    ids = random.integers(1, 50, lengths.sum()).astype(np.int32)
    return Sequences(ids=ids, offsets=np.cumsum([0, *lengths]), prompts=prompts)


@given(st.integers(1, 90), st.integers(1, 20), st.integers(1, 5), st.integers(1, 3))
def test_shards_are_disjoint_and_cover_every_sequence_once(count, batch, world, parts):
    lengths = sequences(count).lengths
    seen = [
        index
        for rows in batches(lengths, batch=batch, seed=3, epoch=1)
        for rank in range(world)
        for part in micro_batches(shard(rows, lengths, rank, world), parts)
        for index in part
    ]
    assert sorted(seen) == list(range(count))


@given(st.integers(2, 60), st.integers(1, 6))
def test_ranks_get_equally_many_sequences_and_nearly_equally_many_tokens(count, world):
    lengths = sequences(count).lengths
    shares = [shard(np.arange(count), lengths, rank, world) for rank in range(world)]
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    if count % world == 0:
        tokens = [int(lengths[share].sum()) for share in shares]
        assert max(tokens) - min(tokens) <= lengths.max()


def test_the_order_is_random_by_seed_and_epoch():
    lengths = sequences(100).lengths

    def order(seed, epoch):
        return np.concatenate(batches(lengths, batch=8, seed=seed, epoch=epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_the_targets_are_the_tokens_after_the_source_and_each_is_predicted_from_the_token_before_it():
    split = sequences(7)
    batch = collate(split, np.arange(7))
    width = batch.inputs.shape[1]
    found = {}
    for place, target in zip(batch.places.tolist(), batch.targets.tolist(), strict=True):
        found.setdefault(place // width, []).append((place % width, target))
    for index in range(7):
        row, prompt = split.row(index).tolist(), int(split.prompts[index])
        assert found[index] == [(position - 1, row[position]) for position in range(prompt, len(row))]
        assert batch.inputs[index, : len(row) - 1].tolist() == row[:-1]


def test_a_rank_without_sequences_has_a_batch_that_predicts_nothing():
    batch = collate(sequences(3), [])
    assert batch.inputs.shape == (1, 1)
    assert len(batch.places) == len(batch.targets) == 0
    assert batch.targets.dtype is torch.int64


@pytest.mark.parametrize("count", [5, 64])
def test_lengths_are_mixed_in_the_epoch_but_alike_in_a_batch(count):
    """Batches of similar lengths pad less than batches at random would."""
    split = sequences(640, longest=60)
    padded = sum(collate(split, rows).inputs.numel() for rows in batches(split.lengths, batch=count, seed=0, epoch=0))
    random = np.random.default_rng(0).permutation(640)
    at_random = sum(collate(split, random[first : first + count]).inputs.numel() for first in range(0, 640, count))
    assert padded < 0.85 * at_random


def test_turns_take_the_batches_with_the_most_ordinary_numbers_of_tokens():
    """Five sequences a batch; batches of 5, 50, 10, 25 and 30 tokens have 24 on average."""
    lengths = np.repeat([1, 10, 2, 5, 6], 5)
    whole = list(np.arange(25).reshape(5, 5))
    assert [batch[0] for batch in typical(whole, lengths, 2)] == [15, 20]
    assert [batch[0] for batch in typical(whole, lengths, 6)] == [15, 20, 10, 0, 5, 15]


@given(st.integers(1, 6), st.integers(1, 5))
def test_a_rank_of_a_weak_turn_pads_as_one_process_does(count, world):
    split = sequences(4 * count, longest=60)
    chosen = batches(split.lengths, batch=4, seed=0, epoch=0)
    for batch, (whole, share) in zip(chosen, whole_batches(chosen, world), strict=True):
        assert collate(split, share).inputs.shape == collate(split, batch).inputs.shape
        assert split.targets[whole].sum() == world * split.targets[share].sum()
