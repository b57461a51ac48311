"""Tables on disk: tidy CSV for machines, booktabs LaTeX for papers."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd

from plumbline.core.files import atomic, write_text
from plumbline.core.present.formatting import MINUS, MISSING

_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    MINUS: "$-$",
    MISSING: "--",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{GREEK SMALL LETTER SIGMA}": r"$\sigma$",
    "\N{GREEK CAPITAL LETTER DELTA}": r"$\Delta$",
}

_TEMPLATE = jinja2.Environment(
    variable_start_string="<<",
    variable_end_string=">>",
    block_start_string="<%",
    block_end_string="%>",
    comment_start_string="<#",
    comment_end_string="#>",
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # LaTeX, not HTML: every cell goes through escape()
).from_string(
    r"""% needs \usepackage{booktabs}
\begin{table}
\centering
\caption{<< caption >>}
\label{<< label >>}
\begin{tabular}{<< alignment >>}
\toprule
<< header >> \\
<% for group in groups %>
\midrule
<% for row in group %>
<< row >> \\
<% endfor %>
<% endfor %>
\bottomrule
\end{tabular}
\end{table}
"""
)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes `frame` to `path` without its index, atomically; floats round-trip exactly."""
    with atomic(path) as partial:
        frame.to_csv(partial, index=False)


def write_latex(frame: pd.DataFrame, path: Path, *, caption: str, label: str, group_by: str | None = None) -> None:
    """Writes a frame of strings as a booktabs table to `path`, atomically.

    Cells, headings and caption are plain text and are escaped here; a missing cell becomes a dash. A rule is drawn
    wherever column `group_by` changes. Raises TypeError for a float in a cell: tables show no bare means, so format
    numbers with `with_interval`.
    """
    groups: list[list[str]] = []
    previous: object = None
    for row in frame.to_dict("records"):
        key = row[group_by] if group_by else None
        if not groups or key != previous:
            groups.append([])
        previous = key
        groups[-1].append(" & ".join(_cell(value) for value in row.values()))
    text = _TEMPLATE.render(
        caption=escape(caption),
        label=label,
        alignment="l" + "".join("l" if _is_name(frame[column]) else "r" for column in frame.columns[1:]),
        header=" & ".join(escape(str(column)) for column in frame.columns),
        groups=groups,
    )
    write_text(path, text)


@dataclass(frozen=True)
class Table:
    """A table as `write_latex` wrote it, in plain text."""

    caption: str
    columns: list[str]
    rows: list[list[str]]


def read_latex(path: Path) -> Table:
    """The table that `write_latex` wrote to `path`. Two hyphens come back as a dash: it marks a missing cell."""
    text = path.read_text(encoding="utf-8")
    caption = re.search(r"^\\caption\{(.*)\}$", text, flags=re.MULTILINE)
    lines = re.findall(r"^(.*) \\\\$", text, flags=re.MULTILINE)
    header, *rows = [[_unescape(cell) for cell in line.split(" & ")] for line in lines]
    return Table(_unescape(caption[1]) if caption else "", header, rows)


def escape(text: str) -> str:
    """`text` with all LaTeX special characters escaped."""
    return "".join(_ESCAPES.get(sign, sign) for sign in text)


def _unescape(text: str) -> str:
    signs = {written: sign for sign, written in _ESCAPES.items()}
    return re.sub("|".join(map(re.escape, sorted(signs, key=len, reverse=True))), lambda found: signs[found[0]], text)


def _cell(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return escape(MISSING)
    if isinstance(value, float):
        raise TypeError(f"a table cell holds the bare number {value!r}; format it with its interval")
    return escape(str(value))


def _is_name(column: pd.Series) -> bool:
    """Whether a column holds words (left-aligned) rather than figures (right-aligned)."""
    return not any(sign.isdigit() for value in column.dropna() for sign in str(value))
