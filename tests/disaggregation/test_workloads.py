"""Workloads of captured graphs: every variant gives the local outputs on real workers, and is told as it was."""

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from disaggregation.interfaces import are_gone
from disaggregation.some_records import CALLS, block, graphs_block, summarized
from plumbline.core.errors import UserError
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.disaggregation import measure_graphs
from plumbline.disaggregation.analysis.decode import cells
from plumbline.disaggregation.analysis.workloads import gains_told, speedups, workload_cells
from plumbline.disaggregation.baselines import ray_actor
from plumbline.disaggregation.baselines.programs import Programs
from plumbline.disaggregation.blocks import links
from plumbline.disaggregation.capture import CaptureSpec, capture, read_graphs
from plumbline.disaggregation.figures import FiguresSpec, figures
from plumbline.disaggregation.plots.decode import latency
from plumbline.disaggregation.plots.workloads import workload_times
from plumbline.disaggregation.settings import DisaggregationSettings
from plumbline.disaggregation.workload_record import WorkloadRecord
from plumbline.disaggregation.workloads import WORKLOADS
from plumbline.disaggregation.workloads.microbenchmark import FAMILIES
from plumbline.disaggregation.workloads.outputs import is_close

SHAPES = {
    "contexts": [8],
    "model": {"vocabulary": 64, "positions": 64, "width": 16, "layers": 2, "heads": 2},
    "prefill": {"rows": 2, "tokens": 8},
    "vision": {"batch": 4, "micro_batches": 4, "pixels": 16, "widths": [8, 16], "depths": [1, 1], "labels": 5},
    "vqa": {
        "batch": 2,
        "pixels": 16,
        "tokens": 8,
        "vocabulary": 32,
        "width": 16,
        "layers": 1,
        "heads": 2,
        "answers": 5,
    },
    "micro": {"rows": 2, "sizes": [8], "repeats": 2},
}
SETTINGS = DisaggregationSettings.model_validate(SHAPES)
CAN_SHAPE = os.geteuid() == 0 and shutil.which("ip") and shutil.which("tc")
HAS_RAY = importlib.util.find_spec("ray") is not None
VARIANTS = {
    "llm_prefill": ["weights_resident", "state_resident", "last_logits", "server_sampling", "split"],
    "vision_cnn": ["weights_resident", "direct_hop", "pipeline"],
    "multimodal_vqa": ["weights_resident", "wanted_only", "branches", "direct_hop"],
}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    path = tmp_path_factory.mktemp("graphs") / "graphs.json"
    names = [*WORKLOADS, "microbenchmark"]
    capture(CaptureSpec(workloads=names, shapes=SETTINGS.shapes, seed=0, code="", inputs=""), path)
    return path


def measured(folder, graphs, *workloads, links=("loopback",), **changes):
    pairs = [(name, link) for name in workloads for link in links]
    values = {"pairs": pairs, "block": 0, "baselines": [], "shapes": SETTINGS.shapes.model_dump(mode="json")}
    values |= {"min_rounds": 5, "seconds": 0.1, "precision": 0.02, "spin_seconds": 0.0, "seed": 0, "device": "cpu"}
    spec = measure_graphs.MeasureGraphsSpec.model_validate(values | {"code": "", "inputs": ""} | changes)
    folder.mkdir(exist_ok=True)
    measure_graphs.measure_graphs(spec, graphs, folder / f"{workloads[0]}-{links[0]}.json")
    return [WorkloadRecord.read(folder / f"{name}-{link}.json") for name in workloads for link in links]


def assert_cores_of_their_own(record):
    """Both workers and the client are on different cores, as far as there are that many."""
    available = len(os.sched_getaffinity(0))
    assert record.client_core is not None
    assert len({*record.worker_cores, record.client_core}) == min(3, available)
    assert available == 1 or record.client_core != record.worker_cores[0]


def test_every_variant_of_every_workload_gives_the_local_outputs_on_workers_and_behind_rpc(tmp_path, graphs):
    for record in measured(tmp_path, graphs, *WORKLOADS, baselines=["capture_only", "rpc"]):
        assert record.ok, record.message
        names = {arm.name: arm.kind for arm in record.arms}
        switches = [f"no_{name}" for name in VARIANTS[record.workload]]
        expected = {"local", "control", "full", "remote", "no_semantics", "capture_only", "rpc", *switches}
        assert {name for name, kind in names.items() if kind == "variant"} == expected
        assert names["both_workers"] == "ceiling"
        assert ("image" in names) is (record.workload == "multimodal_vqa")
        assert record.owner_pids == {"rpc": record.rpc_pid}
        assert len({*record.worker_pids, record.client_pid, record.rpc_pid, os.getpid()}) == 5
        assert_cores_of_their_own(record)
        assert record.owner_cores == {"rpc": [record.worker_cores[0]]}
        assert record.protocol_bytes == record.kernel_bytes > 0
        assert len({len(arm.seconds) for arm in record.arms}) == 1
        sent = {arm.name: (arm.bytes, arm.counted_by, arm.round_trips) for arm in record.arms}
        assert sent["local"] == sent["capture_only"] == (None, None, None)
        assert sent["rpc"] == (None, None, 1)  # on loopback, nothing counts its bytes
        assert record.costs.plans.keys() == expected - {"local", "control", "rpc"}
        cost = {arm.name: arm.bytes for arm in record.arms if arm.bytes}
        assert cost["full"] < cost["no_semantics"]
        assert cost["full"] < cost["no_weights_resident"]


def test_every_operation_of_the_micro_workload_gives_the_local_outputs_wherever_it_runs(tmp_path, graphs):
    (record,) = measured(tmp_path, graphs, "microbenchmark", seconds=1e-3, min_rounds=4, baselines=["rpc"])
    assert record.ok, record.message
    assert {len(arm.seconds) for arm in record.arms} == {4}
    assert {arm.name for arm in record.arms if arm.kind == "probe"} == {
        "round_trip",
        "serialise_65536",
        "serialise_1048576",
    }
    cost = {arm.name: arm.bytes for arm in record.arms}
    programs = {f"{family}_8x{times}" for family in FAMILIES for times in (1, 2)}
    places = ("local", "capture_only", "full", "split", "remote", "no_semantics", "rpc")
    probes = {"round_trip", "control", "serialise_65536", "serialise_1048576"}
    assert set(cost) == {f"{program}/{place}" for program in programs for place in places} | probes
    assert set(record.costs.plans) == {name for name in cost if not name.endswith(("/local", "/rpc", "control"))}
    for program in programs:
        assert cost[f"{program}/local"] is cost[f"{program}/capture_only"] is None
        assert cost[f"{program}/full"] < cost[f"{program}/remote"] <= cost[f"{program}/no_semantics"]
    assert cost["matmul_8x1/remote"] + 4 * 8 * 8 <= cost["matmul_8x1/no_semantics"]
    assert record.owner_pids == {"rpc": record.rpc_pid}
    assert len({*record.worker_pids, record.client_pid, record.rpc_pid, os.getpid()}) == 5
    assert_cores_of_their_own(record)
    assert record.owner_cores == {"rpc": [record.worker_cores[0]]}
    assert record.protocol_bytes == record.kernel_bytes > 0


def test_outputs_are_compared_at_the_scale_of_the_largest_and_never_closer_than_at_1():
    products = torch.randn(64, 1000, generator=torch.Generator().manual_seed(0))
    for scale in (1e-3, 1.0, 100.0):
        exact = (scale * products.double()).sum(1)
        rounded = (scale * products).sum(1)
        assert is_close(rounded, exact.float())
        assert is_close(rounded + 1e-6 * max(1.0, float(exact.abs().max())), exact.float())
        assert not is_close(rounded + 1e-3 * max(1.0, float(exact.abs().max())), exact.float())
    assert not is_close(torch.tensor([float("nan")]), torch.ones(1))
    assert not is_close(torch.tensor([torch.inf, -5.0]), torch.tensor([torch.inf, 1.0]))
    assert not is_close(torch.tensor([100.0, 4.0]).bfloat16(), torch.tensor([100.0, 0.0]).bfloat16())
    assert not is_close(torch.ones(2), torch.ones(1))
    assert not is_close(torch.tensor([3]), torch.tensor([4]))


def test_wrong_outputs_of_an_operation_are_the_outcome_invalid_output(tmp_path, graphs):
    values = json.loads(graphs.read_text())
    for node in values["workloads"]["microbenchmark/norm_8x1"]["graphs"]["2"]["nodes"]:
        if "layer_norm" in node["op"]:
            node["op"], node["args"] = "aten.relu.default", node["args"][:1]
    other = tmp_path / "graphs.json"
    other.write_text(json.dumps(values))
    (record,) = measured(tmp_path / "block", other, "microbenchmark")
    assert record.outcome == "invalid_output"
    assert record.message == "norm_8x1/capture_only: mean is not what local computes"


def test_other_outputs_are_the_outcome_invalid_output_and_other_workloads_go_on(tmp_path, graphs):
    values = json.loads(graphs.read_text())
    nodes = values["workloads"]["vision_cnn"]["graphs"]["1"]["nodes"]
    wrong = next(node for node in nodes if node["op"] == "aten.relu.default")
    wrong["op"] = "aten.sigmoid.default"
    other = tmp_path / "graphs.json"
    other.write_text(json.dumps(values))
    cnn, prefill = measured(tmp_path / "block", other, "vision_cnn", "llm_prefill")
    assert (cnn.outcome, cnn.arms) == ("invalid_output", [])
    assert cnn.message == "full: scores is not what local computes"
    assert prefill.ok


def test_other_outputs_behind_rpc_are_the_outcome_invalid_output(tmp_path, graphs, monkeypatch):
    real = Programs.step

    def off_by_one(self, call):
        return {name: value + 1 for name, value in real(self, call).items()}

    monkeypatch.setattr(Programs, "step", off_by_one)
    cnn, micro = measured(tmp_path, graphs, "vision_cnn", "microbenchmark", baselines=["rpc"])
    assert (cnn.outcome, cnn.arms, cnn.message) == ("invalid_output", [], "rpc: scores is not what local computes")
    assert (micro.outcome, micro.message) == ("invalid_output", "matmul_8x1/rpc: mean is not what local computes")


def test_other_keys_that_an_owner_keeps_are_the_outcome_invalid_output(tmp_path, graphs, monkeypatch):
    real = Programs.step

    def forgets(self, call):
        found = real(self, call)
        return found | {"keys": 0 * found["keys"]} if "keys" in found else found

    monkeypatch.setattr(Programs, "step", forgets)
    (record,) = measured(tmp_path, graphs, "llm_prefill", baselines=["rpc"])
    assert record.outcome == "invalid_output"
    assert record.message == "rpc: keys, which it keeps, is not what local computes"


def test_ray_is_unavailable_with_its_reason_in_every_workload_where_it_is_not_installed(tmp_path, graphs, monkeypatch):
    monkeypatch.setattr(ray_actor, "find_spec", lambda name: None)
    for record in measured(tmp_path, graphs, "multimodal_vqa", "microbenchmark", baselines=["ray"]):
        assert record.ok, record.message
        assert record.unavailable == {"ray": "the package ray is not installed; pip install 'plumbline[ray]'"}
        assert not [arm.name for arm in record.arms if "ray" in arm.name]


@pytest.mark.skipif(not HAS_RAY, reason="needs the extra ray")
def test_actors_of_ray_give_the_local_outputs_of_every_workload_in_processes_of_their_own(tmp_path, graphs):
    baselines = ["ray", "ray_compiled"]
    for record in measured(tmp_path, graphs, *WORKLOADS, "microbenchmark", baselines=baselines):
        assert record.ok, record.message
        assert set(record.owner_pids) == set(baselines)
        assert len({*record.owner_pids.values(), *record.worker_pids, record.client_pid, os.getpid()}) == 6
        assert record.owner_cores == {key: [record.worker_cores[0]] for key in baselines}
        own = [arm for arm in record.arms if arm.name.rpartition("/")[2] in baselines]
        assert len(own) == 2 * (10 if record.workload == "microbenchmark" else 1)
        assert {(arm.bytes, arm.counted_by, arm.round_trips) for arm in own} == {(None, None, 1)}


@pytest.mark.skipif(not (HAS_RAY and CAN_SHAPE), reason="needs the extra ray, root, ip and tc")
def test_actors_of_ray_at_the_far_end_of_a_shaped_link_are_sent_what_its_interface_counts(tmp_path, graphs):
    (record,) = measured(tmp_path, graphs, "vision_cnn", links=["1gbit"], baselines=["rpc", "ray", "ray_compiled"])
    assert record.ok, record.message
    assert_interface_counts(record, ("rpc", "ray", "ray_compiled"))


def assert_interface_counts(record, names):
    """The images crossed the link in every call: the owner is at its other end."""
    images = 4 * 3 * 16 * 16 * 4
    for arm in (arm for arm in record.arms if arm.name in names):
        assert arm.counted_by == "interface"
        assert images < arm.bytes


def test_a_link_that_cannot_be_made_is_unavailable(tmp_path, graphs, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (record,) = measured(tmp_path / "block", graphs, "vision_cnn", links=["1gbit"])
    assert record.outcome == "unavailable"
    assert "a link of 1gbit cannot be made here" in record.message


@pytest.mark.parametrize("link", ["loopback", "1gbit"])
def test_a_block_that_fails_leaves_no_socket_and_no_pipe_open(tmp_path, monkeypatch, link):
    def fails(*args):
        raise OutcomeError(Outcome.UNAVAILABLE, "no worker")

    made = []
    monkeypatch.setattr(measure_graphs, "serve_both", fails)
    monkeypatch.setattr(measure_graphs, "ask", fails)
    monkeypatch.setattr(measure_graphs, "network", lambda link: made.append(links.network(link)) or made[-1])
    before = set(Path("/proc/self/fd").iterdir())
    (record,) = measured(tmp_path / "block", tmp_path / "graphs.json", "vision_cnn", links=[link])
    assert record.message == "no worker"
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert made[0].listening is None or made[0].listening.fileno() == -1


@pytest.mark.skipif(not CAN_SHAPE, reason="needs root, ip and tc")
def test_workers_and_the_owner_behind_a_shaped_link_are_counted_and_leave_no_interface(tmp_path, graphs, monkeypatch):
    made = []
    monkeypatch.setattr(measure_graphs, "network", lambda link: made.append(links.network(link)) or made[-1])
    (record,) = measured(tmp_path / "block", graphs, "vision_cnn", links=["1gbit"], baselines=["rpc"])
    assert record.ok, record.message
    assert record.protocol_bytes == record.kernel_bytes > 0
    assert_interface_counts(record, ["rpc"])
    assert {arm.counted_by for arm in record.arms if arm.round_trips and arm.name != "rpc"} == {"protocol"}
    assert made
    assert are_gone(one.client_interface for one in made)


def test_graphs_of_another_workload_are_named(graphs):
    assert sorted(read_graphs(graphs, "llm_prefill")[0]) == [1, 2]
    with pytest.raises(UserError, match="holds no graphs of another; delete it to have it rebuilt"):
        read_graphs(graphs, "another")


def test_ratios_and_the_share_of_the_bound_are_recovered():
    records = [graphs_block(number) for number in range(3)]
    found = {one.name: one for one in workload_cells(records)}
    assert set(found) == set(CALLS) - {"local", "image", "text", "both_workers"}
    assert found["full"].against_local.value == pytest.approx(0.6, rel=0.01)
    assert found["no_semantics"].against_full.value == pytest.approx(2 / 0.6, rel=0.01)
    assert {name: str(found[name].against_local_verdict) for name in ("full", "no_semantics")} == {
        "full": "faster",
        "no_semantics": "slower",
    }
    (gain,) = speedups(records)
    assert gain.speedup.value == pytest.approx(1.1 / 0.6, rel=0.01)
    assert gain.ceiling.value == pytest.approx(2 * 1.1 / 1.21, rel=0.01)
    assert gain.ideal == pytest.approx((0.6 + 0.4) / 0.6, rel=0.01)
    expected = (1.1 / 0.6) / (gain.ideal * 1.1 / 1.21)
    assert gain.of_bound.value == pytest.approx(expected, rel=0.01)
    assert gain.undivided is None
    (gain,) = speedups([graphs_block(number, undivided="remote") for number in range(3)])
    assert gain.undivided.value == pytest.approx(1.5 / 0.6, rel=0.01)
    (told,) = gains_told([gain], {(gain.workload, gain.link, gain.serial): "p = 0.012"})
    assert re.search(r"in one call, .* takes 2\.50 \[.*\] times as long as full\.$", told), told


def test_the_summary_tells_them(tmp_path):
    others = [graphs_block(number, link) for number in range(2) for link in ("loopback", "1gbit")]
    folder = summarized(tmp_path, [block(0), block(1)], others)
    frame = pd.read_csv(folder / "workloads.csv")
    full = frame[(frame["variant"] == "full") & (frame["link"] == "1gbit")].iloc[0]
    assert full["speedup_low"] < full["speedup"] == pytest.approx(1.1 / 0.6, rel=0.01)
    text = (folder / "disaggregation_analysis.md").read_text()
    assert "multimodal_vqa, loopback: full is 1.83 [" in text
    assert "`no_semantics` (state and what passes between parts also go through the client" in text
    assert "takes this many times as long per call as `full`: multimodal_vqa, 1gbit: 1.83 [" in text
    assert "multimodal_vqa, 1gbit: full on two workers takes 0.60 [" in text
    assert "no branches & full & 1.83 [" in (folder / "tables" / "workload_features.tex").read_text()
    frame = pd.read_csv(folder / "contrasts.csv")
    assert set(frame[frame["workload"] == "multimodal_vqa"]["link"]) == {"loopback", "1gbit"}
    assert "no branches" in (folder / "tables" / "workloads.tex").read_text()
    figures(FiguresSpec(code="", inputs=""), folder / "results.json", folder / "figures" / "latency.pdf")
    assert (folder / "figures" / "speedup.pdf").exists()


def test_the_figure_of_times_has_a_line_at_local_in_every_panel_no_empty_panel_and_colours_of_its_own():
    names = ("llm_prefill", "multimodal_vqa", "vision_cnn")
    records = [graphs_block(number, workload=name) for name in names for number in (0, 1)]
    figure = workload_times(workload_cells(records))
    assert [panel.get_title() for panel in figure.axes] == ["llm prefill", "multimodal vqa", "vision cnn"]
    for panel in figure.axes:
        assert any(list(line.get_ydata()) == [1.0, 1.0] for line in panel.lines)
    of_contexts = {handle.get_color() for handle in latency(cells([block(0)])).legends[0].legend_handles}
    assert not of_contexts & {handle.get_color() for handle in figure.legends[0].legend_handles}
    plt.close("all")


def test_wrong_outputs_fail_the_summary(tmp_path):
    wrong = {"outcome": "invalid_output", "message": "full: scores is not what local computes", "arms": []}
    with pytest.raises(UserError, match="multimodal_vqa-loopback-1: full: scores is not what local computes; nothing"):
        summarized(tmp_path, [block(0)], [graphs_block(0), graphs_block(1, **wrong)])


def test_records_of_other_settings_are_refused(tmp_path):
    records = [graphs_block(0), graphs_block(0, "1gbit", spec={"block": 7})]
    with pytest.raises(UserError, match="recorded with settings or code other than today's"):
        summarized(tmp_path, [block(0)], records)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prefill": {"rows": 3}}, "3 is odd"),
        ({"prefill": {"tokens": 1000}}, "prefill.tokens: 1000 is above model.positions 512"),
        ({"vision": {"micro_batches": 3}}, "3 does not divide batch 16"),
        ({"vision": {"depths": [1]}}, "has 1 stages, widths 2"),
        ({"vqa": {"patch": 7}}, "7 does not divide pixels 64"),
        ({"vqa": {"heads": 3}}, "3 does not divide width 128"),
        ({"workloads": {"vision_cnn": ["loopback", "loopback"]}}, "is named twice"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        DisaggregationSettings.model_validate(values)
