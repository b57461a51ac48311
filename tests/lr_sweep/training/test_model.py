import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from plumbline.lr_sweep.settings import ModelSettings
from plumbline.lr_sweep.training.model import Transformer, flops_per_token, parameter_count, transformers_config

SHAPES = {
    "plain": ModelSettings(vocabulary=300, context=24, width=32, hidden=40, layers=3, heads=4, rope_theta=500.0),
    "tied": ModelSettings(vocabulary=300, context=24, width=32, hidden=40, layers=1, heads=2, tied_embeddings=True),
}


@pytest.fixture(params=SHAPES)
def settings(request):
    return SHAPES[request.param]


def both(settings):
    torch.manual_seed(0)
    ours = Transformer(settings)
    for name, weight in ours.named_parameters():  # weights so large that a wrong formula shows
        torch.nn.init.normal_(weight, mean=float("norm" in name), std=0.3)
    theirs = LlamaForCausalLM(LlamaConfig(**transformers_config(settings, end_of_text=0))).eval()
    theirs.load_state_dict(ours.state_dict())  # strict: the names and shapes are the same
    return ours, theirs


def test_logits_are_those_of_llama_with_the_same_state_dict(settings):
    ours, theirs = both(settings)
    tokens = torch.randint(settings.vocabulary, (3, settings.context))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-5, atol=1e-5)


def test_loss_is_that_of_llama_and_so_are_the_gradients(settings):
    ours, theirs = both(settings)
    tokens = torch.randint(settings.vocabulary, (3, settings.context + 1))
    loss = ours(tokens[:, :-1], tokens[:, 1:])
    logits = theirs(tokens[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(logits.reshape(-1, settings.vocabulary), tokens[:, 1:].reshape(-1))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    gradients = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name].grad, rtol=1e-3, atol=1e-5, msg=name)


def test_sum_of_losses_over_count_is_the_mean_loss(settings):
    ours, _ = both(settings)
    tokens = torch.randint(settings.vocabulary, (3, settings.context + 1))
    total = ours(tokens[:, :-1], tokens[:, 1:], reduction="sum")
    torch.testing.assert_close(total / tokens[:, 1:].numel(), ours(tokens[:, :-1], tokens[:, 1:]))


def test_no_position_sees_what_comes_after_it(settings):
    ours, _ = both(settings)
    tokens = torch.randint(settings.vocabulary, (1, settings.context))
    changed = tokens.clone()
    changed[0, 10:] = (changed[0, 10:] + 1) % settings.vocabulary
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens)[0, :10], ours(changed)[0, :10])


def test_parameter_count_is_that_of_the_model(settings):
    assert parameter_count(settings) == sum(weight.numel() for weight in Transformer(settings).parameters())


def test_source_scale_has_the_sizes_that_its_study_states():
    source = ModelSettings(vocabulary=10_000, context=256, width=512, hidden=1344, layers=4, heads=16)
    assert round(parameter_count(source) / 1e6, 1) == 22.7
    assert round((flops_per_token(source) - 12 * 4 * 512 * 256) / 6e6, 1) == 17.6


def test_matmul_flops_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    settings = SHAPES["plain"]
    model, tokens = Transformer(settings), torch.randint(300, (2, settings.context + 1))
    with FlopCounterMode(display=False) as counter:
        model(tokens[:, :-1], tokens[:, 1:]).backward()
    # torch's count of fused attention on a CPU is left out of the comparison: N is what can be counted alike
    products = sum(count for name, count in counter.get_flop_counts()["Global"].items() if "scaled" not in str(name))
    attention = 12 * settings.layers * settings.width * settings.context
    assert products == (flops_per_token(settings) - attention) * 2 * settings.context
