import math
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.core.present import formatting, tables


def test_csv_gives_back_every_float_to_the_bit(tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": ["a, b", 'say "c"'], "value": [0.1 + 0.2, np.pi], "none": [None, 1.5]})
    path = tmp_path / "summary.csv"
    tables.write_csv(frame, path)
    pd.testing.assert_frame_equal(pd.read_csv(path), frame, check_exact=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.csv"]


def latex(frame: pd.DataFrame, path: Path, **options: str) -> str:
    tables.write_latex(frame, path, caption="50% of _all_", label="tab:x", **options)
    return path.read_text(encoding="utf-8")


def test_latex_is_a_booktabs_table_with_its_cells_in_order(tmp_path: Path) -> None:
    frame = pd.DataFrame({"View": ["Factor", "Product"], "Accuracy (%)": ["61.8 [60.2, 63.1]", None]})
    text = latex(frame, tmp_path / "t.tex")
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    lines = [line for line in body.strip().splitlines() if line]
    assert lines == [
        r"View & Accuracy (\%) \\",
        r"\midrule",
        r"Factor & 61.8 [60.2, 63.1] \\",
        r"Product & -- \\",
    ]
    assert r"\caption{50\% of \_all\_}" in text
    assert r"\begin{tabular}{lr}" in text


def test_latex_rules_off_the_groups(tmp_path: Path) -> None:
    frame = pd.DataFrame({"View": ["a", "a", "b", "b", "b"], "Rank": list("vwxyz")})
    text = latex(frame, tmp_path / "t.tex", group_by="View")
    assert [len(re.findall(r"\\\\", part)) for part in text.split(r"\midrule")[1:]] == [2, 3]


def test_bare_mean_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="interval"):
        latex(pd.DataFrame({"Accuracy": [0.5]}), tmp_path / "t.tex")
    assert not (tmp_path / "t.tex").exists()


@given(st.text(alphabet="ab&%$#_{}~^\\<>−×σ "))
def test_escaped_text_has_no_live_special_character(text: str) -> None:
    commands = r"\\text[a-z]+\{\}|\\[&%$#_{}]|\$-\$|\$\\(?:times|sigma)\$"
    assert not set(re.sub(commands, "", tables.escape(text))) & set("&%$#_{}~^\\<>−×σ")


@pytest.mark.parametrize(
    ("numbers", "options", "text"),
    [
        ((61.84, 60.2, 63.15), {}, "61.8 [60.2, 63.1]"),
        ((-1.25, -2.0, 0.04), {"signed": True}, "−1.2 [−2.0, +0.0]".replace("+0.0", "0.0")),
        ((math.nan, math.nan, math.nan), {}, "–"),
        ((50.0, math.nan, math.nan), {"digits": 0}, "50 [–]"),
    ],
)
def test_mean_comes_with_its_interval(numbers: tuple[float, float, float], options: dict, text: str) -> None:
    assert formatting.with_interval(*numbers, **options) == text


def test_p_values_are_never_zero() -> None:
    assert [formatting.p_text(p) for p in (0.0, 0.00099, 0.0123, 1.0, math.nan)] == [
        "< 0.001", "< 0.001", "0.012", "1.000", "–",
    ]  # fmt: skip


CELLS = st.text(alphabet="ab1 &%$#_{}~^\\<>−–×σΔ[],.|").filter(lambda text: "--" not in text)


@given(st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=2)))
def test_latex_table_is_read_back_as_it_was_written(rows: list[list[str]]) -> None:
    header, *cells = rows
    names = [f"{number}{name}" for number, name in enumerate(header)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.tex"
        frame = pd.DataFrame(cells, columns=names, dtype=object)
        tables.write_latex(frame, path, caption=header[0], label="tab:x", group_by=names[0])
        table = tables.read_latex(path)
    assert (table.caption, table.columns, table.rows) == (header[0], names, cells)
