"""The summary says what the turns say, and refuses wrong tokens."""

import pandas as pd
import pytest

from disaggregation.some_records import TIMES, block, summarized
from plumbline.core.errors import UserError
from plumbline.disaggregation.analysis import cells
from plumbline.disaggregation.figures import FiguresSpec, figures
from plumbline.disaggregation.settings import FIGURES


def test_ratios_are_recovered_although_blocks_and_rounds_drift():
    found = {one.name: one for one in cells([block(0), block(1), block(2)])}
    assert set(found) == set(TIMES) - {"local"}
    for name, one in found.items():
        assert one.against_local.value == pytest.approx(TIMES[name], rel=0.005)
        assert one.against_local.low < TIMES[name] * 1.01
        assert (one.blocks, one.rounds) == (3, 36)
    assert found["no_semantics"].against_full.value == pytest.approx(6 / 1.02, rel=0.005)
    assert {name: str(found[name].verdict) for name in ("control", "full", "no_semantics")} == {
        "control": "no difference",
        "full": "no difference",
        "no_semantics": "slower",
    }


def test_the_summary_writes_its_table_its_findings_and_figures(tmp_path):
    folder = summarized(tmp_path, [block(0), block(1), block(0, "1gbit"), block(1, "1gbit")])
    frame = pd.read_csv(folder / "summary.csv")
    assert len(frame) == 2 * (len(TIMES) - 1)
    full = frame[(frame["link"] == "1gbit") & (frame["variant"] == "full")].iloc[0]
    assert full["against_local_low"] < full["against_local"] < full["against_local_high"]
    text = (folder / "disaggregation_analysis.md").read_text()
    assert "loopback, context 32: the full runtime takes 1.02 [" in text
    assert "no semantics (keys and values travel both ways in every step): generation, prompt included, takes" in text
    assert "prompt included, takes 5.8" in text
    assert "The model that decodes has 1,600,000,000 parameters" in text
    assert "no semantics & 6.0" in (folder / "tables" / "decode.tex").read_text()
    figures(FiguresSpec(code="", inputs=""), folder / "results.json", folder / "figures" / "latency.pdf")
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")
    }


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
