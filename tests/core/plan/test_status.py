import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from plumbline.core.plan.provenance import (
    keep_code,
    move_stale,
    outputs_without_metadata,
    read_contents,
    readers_of_stale_contents,
)
from plumbline.core.plan.status import stage_summaries, target_statuses
from plumbline.core.plan.target import Content, Target

BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def target(name="a", stage="train", needs=(), is_trial=True, **settings):
    return Target(
        study="ablation",
        stage=stage,
        name=name,
        output=f"{stage}/{name}.json",
        settings=settings,
        reads={"x": needs},
        is_trial=is_trial,
    )


@pytest.fixture
def house(tmp_path):
    """Writes records and journals below tmp_path/ablation."""

    class House:
        root = tmp_path

        def record(self, target, spec=None, **more):
            path = tmp_path / "ablation" / target.output
            path.parent.mkdir(parents=True, exist_ok=True)
            record = {"schema": 1, "outcome": "ok", "seconds": 2.0, "spec": spec or json.loads(target.spec), **more}
            path.write_text(json.dumps(record))

        def journal(self, target, *events):
            path = tmp_path / "ablation" / target.journal
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps({"time": time.time(), **event}) + "\n" for event in events))

        def state(self, *targets):
            return target_statuses(targets, tmp_path)[-1]

    return House()


def test_missing_then_done(house):
    trial = target()
    assert house.state(trial).state == "missing"
    house.record(trial)
    assert (house.state(trial).state, house.state(trial).outcome) == ("done", "ok")


def test_stale_trial_says_which_field_changed_from_what_to_what(house):
    house.record(target(hidden=64))
    standing = house.state(target(hidden=128))
    assert (standing.state, standing.why) == ("stale", ("hidden: 64 → 128",))


def test_stale_input_is_named_instead_of_its_digest(house):
    old = target("x", "features", is_trial=False, bins=50)
    house.record(target(needs=(old,)))
    house.record(old)
    house.journal(old, {"event": "start", "spec": json.loads(old.spec)}, {"event": "end", "seconds": 1})
    new = target("x", "features", is_trial=False, bins=60)
    feature, trial = target_statuses([new, target(needs=(new,))], house.root)
    assert feature.why == ("bins: 50 → 60",)
    assert trial.why == ("its input features/x is stale",)


def test_running_failed_and_interrupted_are_distinguished(house):
    start = {"event": "start", "boot": BOOT}
    ours = start | {"pid": os.getpid()}
    house.journal(target(), ours, {"done": 3, "total": 4, "eta_seconds": 5.0})
    assert (house.state(target()).state, house.state(target()).fraction) == ("running", 0.75)
    house.journal(target(), ours, {"event": "failed", "message": "no memory"})
    assert (house.state(target()).state, house.state(target()).why) == ("failed", ("no memory",))
    dead = start | {"pid": 2**22 + 1}
    house.journal(target(), dead, {"done": 3, "total": 4})
    assert (house.state(target()).state, house.state(target()).why) == ("missing", ("interrupted at 75%",))


def test_progress_is_that_of_this_attempt_and_other_notes_do_not_hide_it(house):
    start = {"event": "start", "boot": BOOT, "pid": os.getpid()}
    house.journal(target(), start, {"done": 3, "total": 4}, start | {"attempt": 2})
    assert house.state(target()).fraction is None
    house.journal(target(), start, {"done": 1, "total": 4, "eta_seconds": 3.0}, {"spans": {}})
    assert (house.state(target()).fraction, house.state(target()).eta_seconds) == (0.25, 3.0)


def test_a_later_process_with_the_same_number_does_not_count_as_running(house):
    long_ago = {"event": "start", "boot": BOOT, "pid": os.getpid(), "time": 1.0}
    house.journal(target(), long_ago)
    assert house.state(target()).state == "missing"


def test_stage_on_another_machine_runs_while_its_journal_is_fresh(house):
    house.journal(target(), {"event": "start", "boot": "another", "pid": 1})
    assert house.state(target()).state == "running"
    house.journal(target(), {"event": "start", "boot": "another", "pid": 1, "time": 1.0})
    assert house.state(target()).state == "missing"


def test_stage_summary_counts_and_estimates_what_is_left(house):
    trials = [target(name) for name in "abcd"]
    house.record(trials[0], seconds=2.0)
    house.record(trials[1], seconds=4.0)
    (tally,) = stage_summaries(target_statuses(trials, house.root))
    assert (tally.counts["done"], tally.counts["missing"], tally.total) == (2, 2, 4)
    assert tally.seconds == 6.0
    assert tally.eta_seconds == pytest.approx(6.0)


def test_time_spent_on_a_trial_counts_the_attempts_that_were_killed_on_the_way(house):
    trial, spec = target(), {"hidden": 64}
    start = {"event": "start", "boot": "another", "pid": 1, "spec": spec}
    earlier = [start | {"time": 0.0, "spec": {}}, {"done": 1, "time": 50.0}]
    ended = [start | {"time": 60.0}, {"event": "end", "seconds": 7.0, "time": 67.0}]
    killed = [start | {"time": 100.0}, {"done": 1, "time": 130.0}]
    failed = [start | {"time": 200.0}, {"event": "failed", "time": 204.0}]
    last = [start | {"time": 300.0}, {"event": "end", "seconds": 2.5, "time": 302.5}]
    house.record(trial, seconds=2.0)
    house.journal(trial, *earlier, *ended, *killed, *failed, *last)
    assert house.state(trial).seconds == 2.0 + 30.0 + 4.0
    house.journal(trial, *earlier, *last)
    assert house.state(trial).seconds == 2.0


def test_stale_output_without_metadata_is_renamed_and_a_current_one_stays(house):
    current, stale = target("a", hidden=64), target("b", hidden=128)
    house.record(current)
    house.record(stale, spec=json.loads(target("b", hidden=64).spec))
    (line,) = move_stale(outputs_without_metadata([current, stale], house.root, house.root / "no-metadata"))
    assert "hidden: 64 → 128" in line
    assert sorted(path.name for path in (house.root / "ablation/train").iterdir()) == ["a.json", "b.json.stale"]


def test_output_without_metadata_is_renamed_when_a_content_it_was_made_from_is_about_to_change(house):
    upstream = target("x", hidden=64)
    house.record(upstream, content_sha256="1a")
    content = Content(upstream)
    reader = target("b", needs=(content,))
    read_contents([reader], house.root)
    house.record(reader)
    looked_at = [reader], house.root, house.root / "no-metadata"
    assert outputs_without_metadata(*looked_at) == {}
    house.record(upstream, spec=json.loads(target("x", hidden=128).spec), content_sha256="1a")
    (why,) = outputs_without_metadata(*looked_at).values()
    assert why == "inputs: ablation/train/x will be rebuilt, and its content may change"
    assert readers_of_stale_contents([reader], house.root) == {"ablation/train/x": 1}


def test_stale_code_is_named_by_its_definitions(house):
    before, after = target(), target()
    before.__dict__["code"] = {"core.files.read_json": "1a", "lr_sweep.training.loop.learning_rate": "2b"}
    after.__dict__["code"] = {"core.files.read_json": "1a", "lr_sweep.training.loop.learning_rate": "3c"}
    house.record(before)
    keep_code([before], house.root)
    assert house.state(after).why == ("code: lr_sweep.training.loop.learning_rate changed",)


def test_a_few_of_many_changed_definitions_are_named_and_the_rest_counted(house):
    before, after = target(), target()
    before.__dict__["code"] = {"core.a": "1", "core.gone": "2"}
    after.__dict__["code"] = {"core.a": "9", "core.b": "3", "core.c": "4", "core.d": "5"}
    house.record(before)
    keep_code([before], house.root)
    assert house.state(after).why == ("code: core.a changed, core.b added, core.c added and 2 more",)


def test_code_that_was_not_kept_is_stale_without_names(house):
    before, after = target(), target()
    before.__dict__["code"], after.__dict__["code"] = {"core.a": "1"}, {"core.a": "2"}
    house.record(before)
    assert house.state(after).why == ("code: changed (the earlier definitions were not kept)",)


def test_changed_trials_of_a_summary_are_counted_and_not_listed(house):
    before, after = target(records={"a": "1", "b": "2", "c": "3"}), target(records={"b": "2", "c": "9", "d": "4"})
    house.record(before)
    assert house.state(after).why == ("trials: 1 added, 1 removed, 1 changed",)


def test_time_spent_on_a_trial_of_several_records_is_that_of_all(house):
    several = replace(target(), beside={"others": ["train/b.json"]})
    house.record(several, seconds=2.0)
    house.journal(several, {"event": "start", "spec": {}, "time": 0.0}, {"event": "end", "seconds": 9.0, "time": 9.0})
    assert house.state(several).seconds == 9.0
