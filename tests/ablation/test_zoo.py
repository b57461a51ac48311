"""The zoo: its images, its model, its base's training and its adapters."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

from plumbline.ablation.classifier.splits import rotating_splits
from plumbline.ablation.data.layers import DOWN, UP, in_layer_set
from plumbline.ablation.zoo import images as zoo_images
from plumbline.ablation.zoo.adapters import ZooChunk, chunks_of, draw, fold_of, label_of, train_chunk
from plumbline.ablation.zoo.diffusion import (
    NULL_PROMPT,
    Attention,
    Diffusion,
    flow_losses,
    from_patches,
    load_base,
    to_patches,
)
from plumbline.ablation.zoo.lora import factor_shapes, factors_of, with_adapters
from plumbline.ablation.zoo.pretraining import pretrain
from plumbline.ablation.zoo.sampling import adapter_samples, base_samples, sample
from plumbline.ablation.zoo.settings import LEAST_FOLDS, AdapterSettings, DiffusionSettings, PretrainingSettings
from plumbline.core.errors import UserError

MODEL = DiffusionSettings(width=16, heads=2, blocks=2)
PRETRAINING = PretrainingSettings(steps=450, batch=64, learning_rate=0.01)
SEED = 5


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained() -> tuple[dict[str, torch.Tensor], list[float]]:
    return pretrain(MODEL, PRETRAINING, SEED)


@pytest.fixture(scope="module")
def base(trained, tmp_path_factory) -> Diffusion:
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_file(trained[0], path)
    return load_base(path, MODEL)


class Interrupted(Exception):
    """Stands for the kill."""


def adapters(base: Diffusion, indices: range, **changes) -> ZooChunk:
    chosen = {"chunk": 10, "steps": 6, "learning_rate": 0.01} | changes
    return train_chunk(base, MODEL, AdapterSettings(**chosen), indices, SEED)


def same_bits(left: ZooChunk, right: ZooChunk) -> bool:
    tensors = ("labels", "folds", "num_images", "image_ids", "losses")
    return all(torch.equal(getattr(left, name), getattr(right, name)) for name in tensors) and all(
        torch.equal(left.factors[name], right.factors[name]) for name in left.factors
    )


# Images


def test_images_are_the_digits_scaled_to_minus_one_to_one():
    ours, theirs = zoo_images.digits(), load_digits()
    np.testing.assert_allclose(ours.pixels, theirs.images / 8 - 1, atol=1e-7)
    np.testing.assert_array_equal(ours.labels, theirs.target)
    assert (ours.pixels.min(), ours.pixels.max()) == (-1, 1)


def test_sizes_of_classes_are_those_that_plans_go_by():
    assert tuple(np.bincount(zoo_images.digits().labels)) == zoo_images.CLASS_SIZES


@pytest.mark.parametrize("count", [100, 500])
def test_as_many_folds_as_the_config_asks_for_can_be_split_and_fewer_cannot(count):
    for folds in (LEAST_FOLDS, LEAST_FOLDS - 1):
        labels = np.array([label_of(index) for index in range(count)])
        groups = 100 * labels + [fold_of(index, folds) for index in range(count)]
        with pytest.raises(UserError) if folds < LEAST_FOLDS else nullcontext():
            rotating_splits(labels, groups, runs=2, seed=0)


@given(folds=st.integers(1, 20), purity=st.floats(0.1, 1), seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_every_image_is_in_one_cell_and_a_share_of_each_class_in_its_own_cells(folds, purity, seed):
    labels = load_digits().target
    cells = zoo_images.split_by_fold(labels, folds, purity, seed)
    everything = np.concatenate([ids for by_fold in cells for cell in by_fold for ids in (cell.own, cell.others)])
    assert sorted(everything) == list(range(len(labels)))
    for label, by_fold in enumerate(cells):
        sizes = [len(cell.own) for cell in by_fold]
        assert max(sizes) - min(sizes) <= 1
        assert sum(sizes) == round((labels == label).sum() * purity)
        assert all((labels[cell.own] == label).all() and (labels[cell.others] != label).all() for cell in by_fold)
    others = [len(cell.others) for by_fold in cells for cell in by_fold]
    assert max(others) - min(others) <= 2


# The model


def test_patches_are_read_in_order_and_put_back():
    image = torch.arange(64.0).view(8, 8)
    patches = to_patches(image[None, None])[0, 0]
    expected = [image[i : i + 2, j : j + 2].reshape(-1) for i in range(0, 8, 2) for j in range(0, 8, 2)]
    torch.testing.assert_close(patches, torch.stack(expected))
    torch.testing.assert_close(from_patches(patches), image)


@pytest.mark.parametrize("sequences", [1, 3])
def test_attention_equals_a_plain_loop_over_sequences_and_heads(sequences):
    torch.manual_seed(0)
    attention = Attention(8, 2).double()
    x = torch.randn(2, sequences * 5, 8, dtype=torch.float64)
    context = torch.randn(2, sequences * 4, 8, dtype=torch.float64)
    rows = []
    for group in range(2):
        for s in range(sequences):
            own, other = x[group, s * 5 : s * 5 + 5], context[group, s * 4 : s * 4 + 4]
            q, k, v = attention.to_q(own), attention.to_k(other), attention.to_v(other)
            heads = [
                torch.softmax(q[:, h] @ k[:, h].T / 2.0, -1) @ v[:, h] for h in (slice(0, 4), slice(4, 8))
            ]  # 2 = sqrt(width of a head)
            rows.append(attention.to_out(torch.cat(heads, -1)))
    torch.testing.assert_close(attention(x, context, sequences).flatten(0, 1), torch.cat(rows))


def test_images_of_a_group_do_not_see_each_other(base):
    images, times = torch.randn(2, 3, 8, 8), torch.rand(2, 3)
    prompts = torch.tensor([4, NULL_PROMPT])
    together = base(images, times, prompts)
    for group in range(2):
        for image in range(3):
            alone = base(images[group : group + 1, image : image + 1], times[group, image].view(1, 1), prompts[[group]])
            torch.testing.assert_close(together[group, image], alone[0, 0], atol=1e-5, rtol=1e-5)


def test_a_prompt_of_one_token_is_refused():
    with pytest.raises(ValidationError, match="prompt_tokens"):
        DiffusionSettings(prompt_tokens=1)


def test_sixteen_blocks_carry_128_factors_half_of_them_visual():
    names = list(factor_shapes(DiffusionSettings(blocks=16), 1))
    assert len(names) == 128
    assert len(in_layer_set(names, "visual_only")) == 64
    assert names[0] == "transformer_blocks.0.attn1.to_q.lora.down.weight"


# The base


def test_pretraining_lowers_the_loss_and_the_prompt_helps(trained, base):
    losses = trained[1]
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:3])
    digits = zoo_images.digits()
    images, labels = torch.from_numpy(digits.pixels)[:, None], torch.from_numpy(digits.labels)
    random = torch.Generator().manual_seed(0)
    noise, times = torch.randn(images.shape, generator=random), torch.rand(len(labels), 1, generator=random)
    told = flow_losses(base, images, noise, times, labels).mean()
    mistold = flow_losses(base, images, noise, times, (labels + 1) % 10).mean()
    assert told < mistold


def test_killed_pretraining_resumes_to_the_same_bits(tmp_path):
    settings, checkpoint = PretrainingSettings(steps=9, batch=8), tmp_path / "base.ckpt"
    weights, losses = pretrain(MODEL, settings, SEED)

    def kill(done: int) -> None:
        if done == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        pretrain(MODEL, settings, SEED, checkpoint=checkpoint, checkpoint_seconds=0, progress=kill)
    done: list[int] = []
    again, relosses = pretrain(MODEL, settings, SEED, checkpoint=checkpoint, progress=done.append)
    assert done[0] == 5
    assert relosses == losses
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_checkpoint_of_other_settings_is_ignored(tmp_path):
    checkpoint = tmp_path / "base.ckpt"
    pretrain(MODEL, PretrainingSettings(steps=3, batch=8), SEED, checkpoint=checkpoint, checkpoint_seconds=0)
    assert checkpoint.exists()
    settings = PretrainingSettings(steps=3, batch=8, learning_rate=1e-3)
    expected, _ = pretrain(MODEL, settings, SEED)
    weights, _ = pretrain(MODEL, settings, SEED, checkpoint=checkpoint)
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def test_a_base_of_another_size_a_missing_and_a_corrupt_one_are_refused(trained, tmp_path):
    path = tmp_path / "base.safetensors"
    with pytest.raises(UserError, match="does not exist"):
        load_base(path, MODEL)
    path.write_bytes(b"no tensors here")
    with pytest.raises(UserError, match="is not a safetensors file"):
        load_base(path, MODEL)
    save_file(trained[0], path)
    with pytest.raises(UserError, match="size in the config"):
        load_base(path, DiffusionSettings(width=32, blocks=2))


# The adapters


def test_an_adapter_starts_as_the_base_with_its_own_gaussian_down():
    cells = zoo_images.split_by_fold(zoo_images.digits().labels, 10, 0.5, SEED)
    start = draw(MODEL, AdapterSettings(rank=2), cells, range(200), SEED).factors
    downs = np.stack([factor for name, factor in start.items() if name.endswith(DOWN)])
    assert all((factor == 0).all() for name, factor in start.items() if name.endswith(UP))
    assert len(np.unique(downs)) > 0.99 * downs.size
    np.testing.assert_allclose(downs.std(), 1 / np.sqrt(MODEL.width), rtol=0.01)


def test_an_adapter_is_drawn_from_the_seed_and_its_index_alone():
    cells = zoo_images.split_by_fold(zoo_images.digits().labels, 10, 0.5, SEED)
    settings = AdapterSettings(image_count_max=9)
    many, one = (draw(MODEL, settings, cells, indices, SEED) for indices in (range(40), range(17, 18)))
    np.testing.assert_array_equal(many.noise[17], one.noise[0])
    np.testing.assert_array_equal(many.images[17], one.images[0])
    np.testing.assert_array_equal(many.times[17], one.times[0])
    assert all((many.factors[name][17] == one.factors[name][0]).all() for name in many.factors)
    other = draw(MODEL, settings, cells, range(17, 18), SEED + 1)
    assert (other.noise != one.noise).all()


@given(count=st.integers(1, 3000), folds=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_classes_and_folds_are_balanced(count, folds):
    cells = np.zeros((10, folds), int)
    for index in range(count):
        cells[label_of(index), fold_of(index, folds)] += 1
    assert cells.max() - cells.min() <= 1


@pytest.mark.parametrize("purity", [1.0, 0.5])
def test_adapters_see_every_image_they_have_and_share_none_with_another_class_or_fold(purity):
    labels = zoo_images.digits().labels
    cells = zoo_images.split_by_fold(labels, 5, purity, SEED)
    drawn = draw(MODEL, AdapterSettings(purity=purity, image_count_max=16, folds=5), cells, range(200), SEED)
    of_cell: dict[tuple[int, int], set[int]] = {}
    for row, ids in enumerate(drawn.image_ids):
        share = (labels[ids] == drawn.labels[row]).mean()
        assert abs(share - purity) <= 0.5 / len(ids) + 1e-9
        assert set(drawn.images[row].ravel()) == set(ids)
        assert len(set(ids)) == len(ids)
        of_cell.setdefault((drawn.labels[row], drawn.folds[row]), set()).update(ids)
    assert {len(ids) for ids in drawn.image_ids} == set(range(4, 17))
    assert sum(len(ids) for ids in of_cell.values()) == len(set().union(*of_cell.values()))


def test_more_images_than_a_cell_holds_is_refused(base):
    with pytest.raises(UserError, match=r"adapter\.image_count_max"):
        adapters(base, range(10), image_count_max=16, folds=20)


class PlainLora(nn.Module):
    """One adapter on one linear layer, as in the paper."""

    def __init__(self, linear: nn.Linear, down: torch.Tensor, up: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = linear, scale
        self.down, self.up = nn.Parameter(down.clone()), nn.Parameter(up.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.scale * (x @ self.down.T @ self.up.T)


@pytest.mark.parametrize(("rank", "alpha"), [(1, None), (3, 6.0)])
def test_adapters_trained_together_equal_each_trained_alone(base, rank, alpha):
    chosen = AdapterSettings(rank=rank, alpha=alpha, steps=8, image_count_max=7, chunk=5)
    together = train_chunk(base, MODEL, chosen, range(5), SEED)
    digits = zoo_images.digits()
    cells = zoo_images.split_by_fold(digits.labels, chosen.folds, chosen.purity, SEED)
    drawn = draw(MODEL, chosen, cells, range(5), SEED)
    for row in range(5):
        model, loras = copy.deepcopy(base), {}
        for name in list(drawn.factors):
            if name.endswith(DOWN):
                module = name.removesuffix(DOWN)
                owner, child = model.get_submodule(module.rpartition(".")[0]), module.rpartition(".")[2]
                down, up = (torch.from_numpy(drawn.factors[module + side][row]) for side in (DOWN, UP))
                loras[module] = PlainLora(getattr(owner, child), down, up, chosen.scale)
                setattr(owner, child, loras[module])
        optimizer = torch.optim.Adam(
            [p for lora in loras.values() for p in (lora.down, lora.up)], lr=chosen.learning_rate
        )
        for step in range(chosen.steps):
            pixels = torch.from_numpy(digits.pixels[drawn.images[row, step]])[None]
            noise, times = (torch.from_numpy(x[row, step])[None] for x in (drawn.noise, drawn.times))
            loss = flow_losses(model, pixels, noise, times, torch.tensor([NULL_PROMPT])).mean()
            torch.testing.assert_close(loss, together.losses[row, step], atol=1e-5, rtol=1e-5)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for module, lora in loras.items():
            torch.testing.assert_close(lora.down.data, together.factors[module + DOWN][row], atol=1e-5, rtol=0)
            torch.testing.assert_close(lora.up.data, together.factors[module + UP][row], atol=1e-5, rtol=0)


def test_a_diverging_training_names_its_learning_rate(base):
    with pytest.raises(UserError, match=r"adapter\.learning_rate: adapter \d+ diverges"):
        adapters(base, range(10), learning_rate=1e30)
    with pytest.raises(UserError, match=r"pretraining\.learning_rate"):
        pretrain(MODEL, PretrainingSettings(steps=9, batch=8, learning_rate=1e30, warmup=1), SEED)


def test_every_factor_learns(base):
    zoo = adapters(base, range(10))
    assert all((factor.abs().amax((1, 2)) > 1e-3).all() for factor in zoo.factors.values())


def test_training_adapters_leaves_the_base_as_it_was(base):
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    adapters(base, range(10))
    assert all(torch.equal(before[name], weight) for name, weight in base.state_dict().items())
    assert all(weight.grad is None for weight in base.parameters())


def test_adapters_have_the_same_bits_whichever_shard_asks_for_them(base):
    whole = adapters(base, range(10, 20))
    part = adapters(base, range(12, 15))
    kept = slice(2, 5)
    cut = ZooChunk(
        factors={name: factor[kept] for name, factor in whole.factors.items()},
        labels=whole.labels[kept],
        folds=whole.folds[kept],
        num_images=whole.num_images[kept],
        image_ids=whole.image_ids[kept],
        losses=whole.losses[kept],
    )
    assert same_bits(part, cut)
    assert same_bits(whole, adapters(base, range(10, 20)))


@given(count=st.integers(1, 500), chunk=st.integers(1, 70))
@settings(max_examples=30, deadline=None)
def test_chunks_hold_every_index_once(count, chunk):
    chunks = chunks_of(count, chunk)
    assert [index for indices in chunks for index in indices] == list(range(count))
    assert all(indices[0] // chunk == indices[-1] // chunk for indices in chunks)


def test_image_ids_are_padded_with_minus_one(base):
    zoo = adapters(base, range(10), image_count_max=8)
    assert zoo.image_ids.shape == (10, 8)
    assert torch.equal((zoo.image_ids >= 0).sum(1), zoo.num_images)


def test_adapters_lower_the_loss_on_images_of_their_class_they_never_saw(base):
    zoo = adapters(base, range(20), chunk=20, steps=40)
    digits = zoo_images.digits()
    random = np.random.default_rng(0)
    held_out = []
    for label, own in zip(zoo.labels.numpy(), zoo.image_ids.numpy(), strict=True):
        others = np.setdiff1d(np.flatnonzero(digits.labels == label), own)
        held_out.append(digits.pixels[random.choice(others, 64, replace=False)])
    images = torch.from_numpy(np.stack(held_out))
    torch.manual_seed(0)
    noise, times = torch.randn(images.shape), torch.rand(images.shape[:2])
    prompts = torch.full((20,), NULL_PROMPT)
    with torch.no_grad():
        before = flow_losses(base, images, noise, times, prompts)
        after = flow_losses(with_adapters(base, zoo.factors, 1.0), images, noise, times, prompts)
    assert (before - after).mean() > 3 * (before - after).std() / np.sqrt(20)


def test_installed_factors_come_back_as_they_went_in(base):
    zoo = adapters(base, range(10))
    back = factors_of(with_adapters(base, zoo.factors, 2.0))
    assert list(back) == list(zoo.factors)
    assert all(torch.equal(back[name], zoo.factors[name]) for name in back)


# Samples


def test_adapters_of_zeros_sample_as_the_base_does(base):
    shapes = factor_shapes(MODEL, 1)
    zeros = {name: torch.zeros(2, *shape) for name, shape in shapes.items()}
    ours = adapter_samples(base, zeros, 1.0, images=3, seed=0)
    torch.testing.assert_close(ours, sample(base, torch.tensor([NULL_PROMPT, NULL_PROMPT]), 3, seed=0))
    trained = adapter_samples(base, adapters(base, range(2)).factors, 1.0, images=3, seed=0)
    assert (trained - ours).abs().max() > 0.01


def test_samples_under_a_class_prompt_look_like_that_class(base):
    """Nearest class mean of the real digits, far above the one in ten of chance."""
    digits = zoo_images.digits()
    means = np.stack([digits.pixels[digits.labels == label].mean(0) for label in range(10)])
    samples = base_samples(base, images=20, seed=0).numpy()
    assert samples.shape == (11, 20, 8, 8)
    distances = np.square(samples[:10, :, None] - means).sum((-2, -1))
    assert (distances.argmin(-1) == np.arange(10)[:, None]).mean() > 0.5
