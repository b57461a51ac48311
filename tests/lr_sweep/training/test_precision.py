import pytest
import torch

from lr_sweep.training_runs import MODEL, TRAINING, write_tokens
from plumbline.core.errors import UserError
from plumbline.lr_sweep.settings import TrainingSettings
from plumbline.lr_sweep.training.data import open_tokens
from plumbline.lr_sweep.training.precision import MARGIN, SWITCHES, TOLERANCE, ComputeConfig, autotune

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return open_tokens(write_tokens(tmp_path_factory.mktemp("precision") / "tokens"))


@pytest.fixture(scope="module")
def chosen(tokens):
    return autotune(MODEL, TrainingSettings(batch=4, steps=24), tokens, CPU)


def test_every_decision_says_what_was_asked_and_why(chosen):
    assert set(chosen.decisions) == set(SWITCHES)
    for switch, finding in chosen.decisions.items():
        assert finding.asked == "auto"
        assert finding.chosen is getattr(chosen, switch)
        assert finding.why


@pytest.mark.parametrize("switch", ["bf16", "fused"])
def test_auto_takes_a_switch_exactly_when_its_probe_found_it_faster_and_as_accurate(chosen, switch):
    found = chosen.decisions[switch]
    faster = found.off_seconds >= MARGIN * found.on_seconds
    assert getattr(chosen, switch) is (faster and found.relative_error <= TOLERANCE)


def test_bf16_is_found_less_accurate_than_a_fused_optimizer(chosen):
    assert chosen.decisions["bf16"].relative_error > 1e-4 > chosen.decisions["fused"].relative_error


def test_short_run_is_not_compiled_and_the_reason_names_both_times(chosen):
    assert not chosen.compile
    assert "does not pay: the run takes about" in chosen.decisions["compile"].why


def test_what_is_asked_for_is_taken_without_a_probe(tokens):
    asked = TrainingSettings(precision="on", tf32="off", compile="off", fused="on")
    chosen = autotune(MODEL, asked, tokens, CPU)
    assert (chosen.bf16, chosen.tf32, chosen.compile, chosen.fused) == (True, False, False, True)
    assert all(finding.off_seconds is None for finding in chosen.decisions.values())


def test_tf32_asked_for_on_a_cpu_is_a_mistake(tokens):
    with pytest.raises(UserError, match=r"lr_sweep\.training\.tf32: on, but only a GPU has TF32"):
        autotune(MODEL, TrainingSettings(tf32="on"), tokens, CPU)


def test_probe_draws_nothing_from_the_global_generator(tokens):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    autotune(MODEL, TRAINING.model_copy(update={"precision": "auto"}), tokens, CPU)
    assert torch.equal(before, torch.get_rng_state())


def test_bf16_autocast_is_what_the_switch_turns_on():
    left, right = torch.randn(4, 4), torch.randn(4, 4)
    with ComputeConfig(bf16=True).arithmetic(CPU):
        assert (left @ right).dtype == torch.bfloat16
    with ComputeConfig().arithmetic(CPU):
        assert (left @ right).dtype == torch.float32
