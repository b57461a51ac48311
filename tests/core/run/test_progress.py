import json

import pytest

from plumbline.core.run import progress


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "logs" / "stage.jsonl"
    progress.append_to(path)
    yield path
    progress.append_to(None)


def test_journal_holds_total_rate_and_eta_and_ends_at_all_done(journal, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    assert list(progress.track("abcd", 4, "rows")) == list("abcd")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert lines[0]["done"] == 0
    assert lines[-1]["done"] == lines[-1]["total"] == 4
    assert lines[-1]["eta_seconds"] == 0
    middle = lines[1]
    assert middle["rate_per_second"] > 0
    assert middle["eta_seconds"] == pytest.approx((4 - middle["done"]) / middle["rate_per_second"])


def test_rate_of_a_resumed_stage_counts_only_its_own_work(journal, monkeypatch):
    clock = iter([0.0, 10.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    counter = progress.Progress(total=100, unit="steps", done=90)
    counter.advance(5)
    assert json.loads(journal.read_text().splitlines()[-1])["rate_per_second"] == pytest.approx(0.5)


def test_without_a_journal_nothing_is_written(tmp_path):
    list(progress.track("ab", 2, "rows"))
    assert not list(tmp_path.iterdir())
