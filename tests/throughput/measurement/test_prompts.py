import torch
from safetensors.torch import save_file

from plumbline.throughput.measurement.prompts import prompts


def text_file(folder, **tensors):
    save_file(tensors, folder / "text.safetensors")
    return folder / "text.safetensors"


def test_rows_of_a_smaller_batch_are_the_first_of_a_larger_one(tmp_path):
    for path in (
        text_file(tmp_path, evaluation=torch.arange(600).view(20, 30)),
        text_file(tmp_path, calibration=torch.zeros(1)),
    ):
        large = prompts(path, 600, 64, 7, seed=3)
        assert large.shape == (64, 7)
        assert large.dtype == torch.int64
        for batch in (1, 8, 63):
            assert torch.equal(prompts(path, 600, batch, 7, seed=3), large[:batch])
        assert len(large.unique(dim=0)) > 55
        assert not torch.equal(prompts(path, 600, 64, 7, seed=4), large)


def test_prompts_are_pieces_of_the_evaluation_text_and_wrap_around(tmp_path):
    path = text_file(tmp_path, evaluation=torch.arange(30).view(5, 6), calibration=torch.full((5, 6), 99))
    rows = prompts(path, 100, 40, 45, seed=0)
    assert torch.equal(rows[:, 1:], (rows[:, :-1] + 1) % 30)


def test_prompts_have_only_ids_that_the_model_knows(tmp_path):
    path = text_file(tmp_path, evaluation=torch.arange(600).view(20, 30))
    rows = prompts(path, 50, 40, 9, seed=0)
    assert 0 <= int(rows.min()) < int(rows.max()) < 50
