"""The summary says what the turns say, and refuses wrong tokens."""

import re

import numpy as np
import pandas as pd
import pytest
import scipy
from pydantic import ValidationError

from disaggregation.some_records import CALLS, TIMES, block, graphs_block, micro_block, summarized
from plumbline.core.errors import UserError
from plumbline.core.files import write_json
from plumbline.disaggregation.analysis.contrasts import (
    blocks_for_wilcoxon,
    calls,
    contrasts,
    decoding,
    least_wilcoxon_p,
)
from plumbline.disaggregation.analysis.decode import cells, cells_frame
from plumbline.disaggregation.analysis.workloads import speedups, workload_cells, workloads_frame
from plumbline.disaggregation.figures import FiguresSpec, figures
from plumbline.disaggregation.record import MeasureRecord
from plumbline.disaggregation.settings import CONTRASTS, FEATURES, FIGURES, WORKLOAD_CONTRASTS, DisaggregationSettings
from plumbline.disaggregation.workload_record import WorkloadRecord


def test_ratios_are_recovered_although_blocks_and_rounds_drift():
    found = {one.name: one for one in cells([block(0), block(1), block(2)])}
    assert set(found) == set(TIMES) - {"local"}
    for name, one in found.items():
        assert one.against_local.value == pytest.approx(TIMES[name], rel=0.005)
        assert one.against_local.low < TIMES[name] * 1.01
        assert (one.blocks, one.rounds) == (3, 36)
    assert found["rpc"].against_full.value == pytest.approx(2 / 1.02, rel=0.005)
    assert found["capture_only"].against_full is None
    assert found["no_semantics"].against_full.value == pytest.approx(6 / 1.02, rel=0.005)
    assert {name: str(found[name].against_local_verdict) for name in ("control", "full", "no_semantics")} == {
        "control": "no difference",
        "full": "no difference",
        "no_semantics": "slower",
    }


def test_each_verdict_says_in_its_name_what_it_is_against():
    found = {one.name: one for one in cells([block(0), block(1), block(2)])}
    assert found["rpc"].against_full_verdict == found["rpc"].against_local_verdict == "slower"
    assert found["full"].against_full_verdict is found["generate"].against_full_verdict is None
    records = [graphs_block(number) for number in range(3)]
    called = {one.name: one for one in workload_cells(records)}
    verdicts = {name: (one.against_local_verdict, one.against_full_verdict) for name, one in called.items()}
    assert verdicts["control"] == ("no difference", None)
    assert verdicts["full"] == ("faster", None)
    assert verdicts["capture_only"] == ("faster", "slower")
    frames = cells_frame(list(found.values())), workloads_frame(list(called.values()), speedups(records))
    for frame in frames:
        named = [name for name in frame if "verdict" in name]
        assert named == ["against_local_verdict", "against_full_verdict"]
        rows = frame.set_index("variant")
        assert rows["against_full_verdict"].notna().tolist() == rows["against_full"].notna().tolist()


def test_the_summary_writes_its_table_its_findings_and_figures(tmp_path):
    folder = summarized(tmp_path, [block(0), block(1), block(0, "1gbit"), block(1, "1gbit")])
    frame = pd.read_csv(folder / "summary.csv")
    assert len(frame) == 2 * (len(TIMES) - 1)
    full = frame[(frame["link"] == "1gbit") & (frame["variant"] == "full")].iloc[0]
    assert full["against_local_low"] < full["against_local"] < full["against_local_high"]
    text = (folder / "disaggregation_analysis.md").read_text()
    assert "loopback, context 32: the full runtime takes 1.02 [" in text
    assert "`no_semantics` (logits, keys and values travel both ways in every step, and the client asks" in text
    assert "takes this many times as long per token as `full`: 1gbit, context 32: 5.8" in text
    assert "The model that decodes has 1,600,000,000 parameters" in text
    assert "no semantics & 6.0" in (folder / "tables" / "decode.tex").read_text()
    figures(FiguresSpec(code="", inputs=""), folder / "results.json", folder / "figures" / "latency.pdf")
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")
    }


def four_blocks():
    return contrasts(decoding([block(number) for number in range(4)]), CONTRASTS)


def test_each_feature_is_compared_with_full_and_where_no_stream_is_possible_with_no_stream_too():
    found = {
        (one.name, one.base): one for one in contrasts(decoding([block(number) for number in range(4)]), CONTRASTS)
    }
    assert {name for name, base in found if base == "full"} == {*FEATURES.values(), "remote", "no_semantics", "rpc"}
    assert {name for name, base in found if base == "no_stream"} == {"no_server_sampling", "no_state_resident"}
    for (name, base), one in found.items():
        assert one.ratio.value == pytest.approx(TIMES[name] / TIMES[base], rel=0.01)
        assert one.ratio.low <= one.ratio.value <= one.ratio.high


def test_p_values_are_those_of_scipy_and_holm_corrected_within_their_family():
    records = [block(number, link) for link in ("loopback", "1gbit") for number in range(4)]
    found = contrasts(decoding(records), CONTRASTS)
    for family in ("features", "baselines", "control"):
        own = [one for one in found if one.family == family]
        assert own
        for one in own:
            logs = [
                np.median(np.log(arms[one.name] / base_of(arms, one)))
                for record in records
                if record.link == one.place.link
                for arms in [{arm.name: np.array(arm.seconds) for arm in record.contexts[0].arms}]
            ]
            assert one.p_value == pytest.approx(scipy.stats.ttest_1samp(logs, 0).pvalue)
            tests = [scipy.stats.ttest_1samp(logs, side * np.log(1.05), alternative=way).pvalue for side, way in SIDES]
            assert one.equivalence_p == pytest.approx(max(tests), abs=1e-9)
        worst = 0.0
        for rank, one in enumerate(sorted(own, key=lambda one: one.p_value)):
            worst = max(worst, min(1.0, one.p_value * (len(own) - rank)))
            assert one.p_corrected == pytest.approx(worst)


def test_contrasts_of_the_other_workloads_are_tested_over_blocks_and_corrected_over_all_of_their_rows():
    records = [graphs_block(number, link) for link in ("loopback", "1gbit") for number in range(4)]
    found = contrasts(calls(records), WORKLOAD_CONTRASTS)
    pairs = {family: {(one.name, one.base) for one in found if one.family == family} for family in FAMILIES}
    assert pairs["features"] == {("no_branches", "full")}
    assert pairs["baselines"] == {("full", "local"), ("capture_only", "local")} | {
        (name, "full") for name in ("remote", "no_semantics", "rpc")
    }
    assert {one.name for one in found if one.family == "control"} == {"control"}
    for family in FAMILIES:
        own = [one for one in found if one.family == family]
        assert [str(one.place) for one in own[:: len(pairs[family])]] == PLACES
        for one in own:
            logs = [
                np.median(np.log(arms[one.name] / base_of(arms, one)))
                for record in records
                if record.link == one.place.link
                for arms in [{arm.name: np.array(arm.seconds) for arm in record.arms}]
            ]
            assert one.p_value == pytest.approx(scipy.stats.ttest_1samp(logs, 0).pvalue)
            assert one.ratio.value == pytest.approx(CALLS[one.name] / CALLS[one.base], rel=0.01)
        assert [one.p_corrected for one in own] == pytest.approx(holm_by_hand([one.p_value for one in own]))


FAMILIES = ("features", "baselines")
PLACES = ["multimodal_vqa, loopback", "multimodal_vqa, 1gbit"]


def holm_by_hand(p_values):
    ranks = sorted(range(len(p_values)), key=p_values.__getitem__)
    found = [0.0] * len(ranks)
    for place, index in enumerate(ranks):
        found[index] = max(min(1.0, p_values[one] * (len(ranks) - rank)) for rank, one in enumerate(ranks[: place + 1]))
    return found


def test_a_contrast_that_the_config_does_not_name_is_not_tested_and_does_not_cost_the_others():
    named = CONTRASTS.model_copy(update={"features": {"full": ["no_stream"]}, "baselines": {}})
    found = contrasts(decoding([block(number) for number in range(4)]), named)
    assert [(one.name, one.base) for one in found] == [("no_stream", "full"), ("control", "local")]
    assert found[0].p_corrected == found[0].p_value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"contrasts": {"features": {"full": ["no_split"]}}}, "features: no variant is called no_split"),
        ({"workload_contrasts": {"baselines": {"locl": ["full"]}}}, "baselines: no variant is called locl"),
        ({"contrasts": {"baselines": {"full": ["rpc", "rpc"]}}}, "baselines.full: rpc is named twice"),
        ({"contrasts": {"baselines": {"full": ["full"]}}}, "baselines.full: full is compared with itself"),
    ],
)
def test_contrasts_of_variants_that_there_are_not_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        DisaggregationSettings.model_validate(values)


SIDES = ((-1, "greater"), (1, "less"))


def base_of(arms, contrast):
    if contrast.base == "local" and contrast.name != "control":
        return np.sqrt(arms["local"] * arms["control"])
    return arms[contrast.base]


def test_a_control_shows_nothing_and_an_equal_feature_is_not_significant_but_equivalent():
    found = {
        (one.name, one.base): one for one in contrasts(decoding([block(number) for number in range(4)]), CONTRASTS)
    }
    assert not found["control", "local"].is_significant
    assert found["control", "local"].is_equivalent
    assert found["no_last_logits", "full"].is_equivalent
    assert found["full", "local"].is_equivalent
    assert found["no_state_resident", "full"].is_significant
    assert not found["no_state_resident", "full"].is_equivalent
    assert found["no_state_resident", "full"].cliffs_delta == 1.0


def test_closeness_to_local_is_told_only_where_no_difference_is_shown(tmp_path):
    folder = summarized(tmp_path, [block(n) for n in range(4)], [graphs_block(n) for n in range(4)])
    text = (folder / "disaggregation_analysis.md").read_text()
    assert re.search(r"full runtime takes 1\.02 .* It is shown to be within 5% of local \(TOST", text)
    (line,) = re.findall("- .*full on two workers takes.*", text)
    assert re.fullmatch(r".* takes 0\.60 \[.*\] times as long as local \(p < 0\.001\)\.", line)
    folder = summarized(tmp_path / "one", [block(0)], [graphs_block(0)])
    assert "It is not shown to be within 5%" in (folder / "disaggregation_analysis.md").read_text()


def test_bytes_that_differ_between_blocks_are_averaged(tmp_path):
    records = []
    for number in range(2):
        record = block(number).to_json()
        for arm in record["contexts"][0]["arms"]:
            if arm["name"] == "rpc":
                arm |= {"bytes_per_token": 100.0 + 10 * number, "counted_by": "interface"}
        write_json(tmp_path / f"{number}.json", record)
        records.append(MeasureRecord.read(tmp_path / f"{number}.json"))
    assert {one.name: one.bytes_per_token for one in cells(records)}["rpc"] == 105.0


def test_four_blocks_cannot_be_significant_by_ranks_and_the_findings_say_so(tmp_path):
    assert least_wilcoxon_p(4) == scipy.stats.wilcoxon([1, 2, 3, 4], method="exact").pvalue == 0.125
    assert (least_wilcoxon_p(5), blocks_for_wilcoxon()) == (0.0625, 6)
    folder = summarized(tmp_path / "four", [block(number) for number in range(4)])
    assert "cannot go below p = 0.125" in (folder / "disaggregation_analysis.md").read_text()
    folder = summarized(tmp_path / "six", [block(number) for number in range(6)])
    assert "cannot fall below" not in (folder / "disaggregation_analysis.md").read_text()


def test_every_claim_of_the_findings_names_files_that_are_there(tmp_path):
    gone = {"ray": "the package ray is not installed"}
    folder = summarized(tmp_path, [block(number, link, unavailable=gone) for link in LINKS for number in range(2)])
    figures(FiguresSpec(code="", inputs=""), folder / "results.json", folder / "figures" / "latency.pdf")
    rows = [line.split(" | ") for line in (folder / "claims.md").read_text().splitlines() if line.startswith("| ")][2:]
    said = (folder / "disaggregation_analysis.md").read_text()
    assert [row[0][2:] for row in rows] == [line[2:] for line in said.splitlines() if line.startswith("- ")]
    for row in rows:
        for path in re.findall("`([^`]+)`", row[1]):
            assert list(folder.glob(path)), path


LINKS = ("loopback", "1gbit")


def test_a_baseline_that_could_not_run_is_a_cell_and_a_caveat_and_has_no_number(tmp_path):
    folder = summarized(tmp_path, [block(number, unavailable={"ray": "not installed"}) for number in range(2)])
    assert "ray, loopback: unavailable (not installed)." in (folder / "disaggregation_analysis.md").read_text()
    table = (folder / "tables" / "decode.tex").read_text()
    assert "loopback & all & ray & unavailable & -- & -- & --" in table
    assert re.search(r"rpc & 2\.00 \[.*\] & 1\.96 \[.*\] & unavailable & 1\.00", table)  # bytes that nothing counts
    assert "ray" not in set(pd.read_csv(folder / "summary.csv")["variant"])


def test_a_baseline_that_could_not_run_in_another_workload_is_a_cell_and_a_caveat_and_has_no_number(tmp_path):
    others = [graphs_block(number, unavailable={"ray": "not installed"}) for number in range(2)]
    folder = summarized(tmp_path, [block(0), block(1)], others)
    assert "ray, loopback: unavailable (not installed)." in (folder / "disaggregation_analysis.md").read_text()
    table = (folder / "tables" / "workloads.tex").read_text()
    assert "multimodal vqa & loopback & ray & unavailable & -- & -- & --" in table
    assert re.search(r"rpc & 1\.80 \[.*\] & 3\.00 \[.*\] & unavailable & 1 ", table)  # bytes that nothing counts
    assert re.search(r"capture only & 0\.90 \[.*\] & 1\.50 \[.*\] & -- & --", table)  # nothing is sent
    assert "ray" not in set(pd.read_csv(folder / "workloads.csv")["variant"])


def test_what_an_interface_counted_of_another_workload_is_averaged_over_blocks():
    records = []
    for number in range(2):
        record = graphs_block(number).to_json()
        for arm in record["arms"]:
            if arm["name"] == "rpc":
                arm |= {"bytes": 1000.0 + 100 * number, "counted_by": "interface"}
        records.append(WorkloadRecord.model_validate(record))
    assert {one.name: one.bytes for one in workload_cells(records)}["rpc"] == 1050.0


def test_a_baseline_of_some_blocks_alone_is_left_out_and_the_others_are_compared():
    short = graphs_block(1).to_json()
    short["arms"] = [arm for arm in short["arms"] if arm["name"] != "rpc"]
    found = workload_cells([graphs_block(0), WorkloadRecord.model_validate(short)])
    names = {one.name for one in found}
    assert "full" in names
    assert "rpc" not in names


def test_the_heat_map_has_every_baseline_in_every_workload_and_says_why_a_cell_is_missing(tmp_path):
    gone = {"ray": "not installed"}
    failed = {"outcome": "out_of_memory", "message": "asked for 9 GB", "arms": [], "workload": "vision_cnn"}
    others = [
        *(graphs_block(number, unavailable=gone) for number in range(2)),
        graphs_block(0, "1gbit", trial="vision_cnn-1gbit-0", **failed),
        *(micro_block(number) for number in range(2)),
    ]
    folder = summarized(tmp_path, [block(0), block(1)], others)
    frame = pd.read_csv(folder / "heat_map.csv").set_index(["workload", "link", "baseline"]).sort_index()
    six = {"capture_only", "remote", "no_semantics", "full", "rpc", "ray"}
    for workload in ("llm_decode", "multimodal_vqa", "microbenchmark"):
        assert set(frame.loc[(workload, "loopback")].index) == six
    assert frame.loc[("llm_decode", "loopback", "rpc"), "against_local"] == pytest.approx(TIMES["rpc"], rel=0.01)
    assert frame.loc[("multimodal_vqa", "loopback", "rpc"), "against_local"] == pytest.approx(CALLS["rpc"], rel=0.01)
    times = {arm.name: np.median(arm.seconds) for arm in others[-1].arms}
    programs = [name.removesuffix("/local") for name in times if name.endswith("/local")]
    logs = [np.log(times[f"{one}/rpc"] / times[f"{one}/local"]) for one in programs]
    micro = frame.loc[("microbenchmark", "loopback", "rpc"), "against_local"]
    assert micro == pytest.approx(np.exp(np.mean(logs)), rel=0.01)
    missing = frame["missing"].dropna()
    assert missing["multimodal_vqa", "loopback", "ray"] == "unavailable: not installed"
    assert missing["llm_decode", "loopback", "ray"] == "not named in `baselines`"
    assert missing["vision_cnn", "1gbit", "full"] == "out of memory (asked for 9 GB)"
    assert missing["vision_cnn", "1gbit", "rpc"] == "out of memory (asked for 9 GB)"
    assert missing["vision_cnn", "1gbit", "ray"] == "not named in `baselines`"
    assert (frame["against_local"].isna() == frame["missing"].notna()).all()
    text = (folder / "disaggregation_analysis.md").read_text()
    assert "17 of 35 cells" in text  # six, six, and five, for the operations lack no_semantics here
    assert "llm_prefill (not named in `workloads`)" in text
    assert "ray in multimodal_vqa (unavailable: not installed)" in text
    table = (folder / "tables" / "heat_map.tex").read_text()
    assert re.search("vision cnn & 1gbit & out of memory & out of memory", table)


def test_a_link_that_is_unavailable_is_a_caveat_and_the_rest_goes_on(tmp_path):
    gone = {"outcome": "unavailable", "message": "no tc", "contexts": [], "device": None}
    folder = summarized(tmp_path, [block(0), block(1), block(0, "1gbit", **gone)])
    assert "llm_decode-1gbit-0: unavailable (no tc)." in (folder / "disaggregation_analysis.md").read_text()
    assert set(pd.read_csv(folder / "summary.csv")["link"]) == {"loopback"}


def test_nothing_available_still_has_findings_and_figures(tmp_path):
    gone = {"outcome": "unavailable", "message": "no tc", "contexts": [], "device": None}
    folder = summarized(tmp_path, [block(0, **gone)])
    figures(FiguresSpec(code="", inputs=""), folder / "results.json", folder / "figures" / "latency.pdf")
    assert (folder / "figures" / "traffic.png").exists()


def test_wrong_tokens_fail_the_summary(tmp_path):
    wrong = {"outcome": "invalid_output", "message": "full generates other tokens", "contexts": []}
    with pytest.raises(UserError, match="llm_decode-loopback-1: full generates other tokens; nothing is summarized"):
        summarized(tmp_path, [block(0), block(1, **wrong)])
