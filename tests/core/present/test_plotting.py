import itertools
import os
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.image import imread
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from plumbline.core.present import plotting

DRAW = """
import sys; from pathlib import Path
import matplotlib.pyplot as plt
from plumbline.core.present import plotting
with plotting.style():
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.plot([1, 3, 2], label="ΔW, σ"); axes.legend()
    plotting.save(figure, Path(sys.argv[1]) / "a.pdf", Path(sys.argv[1]) / "a.png")
"""


def drawn(folder: Path, hash_seed: str) -> dict[str, bytes]:
    folder.mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", DRAW, str(folder)], check=True, env=environment)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_figure_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    assert drawn(tmp_path / "one", "1") == drawn(tmp_path / "two", "2")


def test_saved_figure_has_embedded_fonts_300_dpi_and_leaves_nothing_open(tmp_path: Path) -> None:
    with plotting.style():
        figure, axes = plt.subplots(figsize=(2, 1))
        axes.set_title("Title")
        plotting.save(figure, tmp_path / "a.pdf", tmp_path / "a.png")
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in pdf, "TrueType outlines are embedded"
    assert b"/Type3" not in pdf
    assert imread(tmp_path / "a.png").shape[:2] == (300, 600)
    assert not plt.fignum_exists(figure.number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdf", "a.png"]


def test_style_ends_with_its_block() -> None:
    before = plt.rcParams["pdf.fonttype"]
    with plotting.style():
        assert plt.rcParams["pdf.fonttype"] == 42
    assert plt.rcParams["pdf.fonttype"] == before


def test_any_name_is_drawn_as_it_is_or_by_its_number(tmp_path: Path) -> None:
    names = ["A$AP_Ro$ky", "a_{b}^c", "\\frac%#&~", "قطة", "naïve\nnew", "猫", "🐈", "", "x" * 50]
    shown = plotting.drawable(names)
    assert shown[:5] == [*names[:4], "naïve new"]
    assert shown[5:8] == ["class 5", "class 6", "class 7"]
    assert len(shown[8]) == 32
    with plotting.style(), warnings.catch_warnings():
        warnings.simplefilter("error")  # a sign that the font lacks
        figure, axes = plt.subplots()
        axes.set_xticks(range(len(shown)), shown, parse_math=False)
        plotting.save(figure, tmp_path / "a.pdf", tmp_path / "a.png")


def test_names_of_a_crowded_front_cover_neither_each_other_nor_the_front() -> None:
    rng = np.random.default_rng(0)
    points = list(zip(np.sort(rng.uniform(0.5, 0.6, 8)), np.sort(rng.uniform(0.2, 0.4, 8)), strict=True))
    with plotting.style():
        figure, axes = plt.subplots(figsize=(5, 4))
        axes.set(xlim=(0, 1), ylim=(0, 1))
        figure.draw_without_rendering()
        notes = plotting.label_front(axes, points, [f"label {i}" for i in range(8)])
        renderer = figure.canvas.get_renderer()
        for note in notes:
            note.update_positions(renderer)
        boxes = [Text.get_window_extent(note, renderer) for note in notes]
        front = axes.transData.transform(points)
    plt.close(figure)
    assert len(boxes) == 8
    assert not any(one.overlaps(two) for one, two in itertools.combinations(boxes, 2))
    for (x, low), (right, _) in itertools.pairwise(front):
        step = Bbox([(x, low), (right, low + 0.1)])
        assert not any(box.overlaps(step) for box in boxes)
