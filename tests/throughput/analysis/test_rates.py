from plumbline.throughput.analysis.rates import decoded, timed


def test_failed_batches_and_those_that_do_not_count_are_not_timed() -> None:
    record = {"batches": [{"seconds": 1.0, "tokens": 8, "ok": True}, {"seconds": 9.0, "tokens": 0, "ok": False}]}
    assert timed(record).tolist() == [[1.0, 8.0]]
    record["batches"] += [{"seconds": 2.0, "tokens": 8, "ok": True, "counts": counts} for counts in (True, False)]
    assert timed(record).tolist() == [[1.0, 8.0], [2.0, 8.0]]
    assert timed({}).shape == (0, 2)


def test_decode_steps_have_a_token_of_every_sequence() -> None:
    assert decoded({"inter_token_seconds": [0.5, 0.25], "batch": 4}).tolist() == [[0.5, 4.0], [0.25, 4.0]]
    assert decoded({"batch": 4}).shape == (0, 2)
