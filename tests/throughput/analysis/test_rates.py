from plumbline.throughput.analysis.rates import decoded, timed
from throughput.grid_records import failed, timed_batch, trial


def test_failed_batches_are_not_timed() -> None:
    some = [timed_batch(1.0, 8), timed_batch(9.0, 0, ok=False), timed_batch(3.0, 8)]
    assert timed(trial(batches=some)).tolist() == [[1.0, 8.0], [3.0, 8.0]]
    assert timed(failed()).shape == (0, 2)


def test_decode_steps_have_a_token_of_every_sequence() -> None:
    assert decoded(trial(batch=4, inter_token_seconds=[0.5, 0.25])).tolist() == [[0.5, 4.0], [0.25, 4.0]]
    assert decoded(failed("timeout", "base", "lean", 4)).shape == (0, 2)
