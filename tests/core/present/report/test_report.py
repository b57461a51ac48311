"""The report: every figure, finding and table of every study on one page that needs nothing beside it."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import yaml

from plumbline import config as configuration
from plumbline.core.errors import UserError
from plumbline.core.present.findings import findings_text
from plumbline.core.present.plotting import save
from plumbline.core.present.report.chapters import Chapter, ReportSpec, given_options, title_and_caption
from plumbline.core.present.report.found import caption_of
from plumbline.core.present.report.write import write_report
from plumbline.core.present.tables import write_latex

ROOT = Path(__file__).parents[4]
TEXTS = ROOT / "workflow" / "report"
MACHINE = {
    "cpu_model": "A <CPU>",
    "cores": 2,
    "git_commit": "abc123",
    "python": "3.11",
    "versions": {"torch": "2.13"},
}
FINDING = 'The <b>best</b> is "7" & more: 61.8 [60.2, 63.1].'


def default_spec() -> ReportSpec:
    return configuration.report_spec(configuration.load([ROOT / "config.yaml"]).plan())


def results_of(chapter: Chapter, folder: Path, picture: Path) -> None:
    """Writes findings, records, figures and tables of a chapter, in the forms that the studies write them."""
    (phrase, *_) = yaml.safe_load((TEXTS / "headlines.yaml").read_text())[chapter.study]
    said = findings_text("Findings", {"Which is best?": [FINDING, f"x{phrase}y: 1.0 [0.9, 1.1]."], "Caveats": ["Few."]})
    trial = {"outcome": "ok", "machine": MACHINE, "device": "cpu", "started": "2026-11-27T06:00:00+00:00"}
    (folder / chapter.findings).parent.mkdir(parents=True)
    (folder / chapter.findings).write_text(said)
    (folder / chapter.records).write_text(json.dumps({"trials": [trial, trial | {"outcome": "out_of_memory"}]}))
    for path in chapter.figures:
        (folder / path).parent.mkdir(exist_ok=True)
        shutil.copy(picture, folder / path)
    for path in chapter.tables:
        (folder / path).parent.mkdir(exist_ok=True)
        write_latex(pd.DataFrame({"a & b": ["1.0 [0.9, 1.1]"]}), folder / path, caption="100% of <it>", label="t")


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("picture")
    figure, axes = plt.subplots(figsize=(1, 1))
    axes.plot([1, 2])
    save(figure, folder / "a.pdf", folder / "a.png")
    return folder / "a.png"


@pytest.fixture(scope="module")
def written(tmp_path_factory, picture) -> Path:
    """The report of the default config's studies, all of them run. Not to be changed."""
    folder = tmp_path_factory.mktemp("report") / "results"
    spec = default_spec()
    for chapter in spec.chapters:
        results_of(chapter, folder, picture)
    (folder / "config.json").write_text(json.dumps({"seed": 0, "note": "a" * 500}))
    write_report(spec, folder, TEXTS, "--configfile mine.yaml", folder / "report.html")
    return folder


class Page(HTMLParser):
    """What a page holds: its text, its elements, and all that it would load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.tags, self.loaded, self.ids, self.links = "", [], [], [], []
        self.images: list[dict[str, str | None]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.images += [values] if tag == "img" else []
        self.loaded += [values[name] for name in ("src", "srcset", "data", "poster") if name in values]
        self.links += [values["href"]] if tag == "a" else []
        self.loaded += [values["href"]] if tag == "link" else []

    def handle_data(self, data):
        self.text += data


def test_every_figure_of_the_plan_is_on_the_page_with_a_title(written):
    page = Page(written / "report.html")
    figures = [path for chapter in default_spec().chapters for path in chapter.figures]
    assert len(figures) > 30
    assert len(page.images) == len(figures)
    assert [path for path in page.ids if path.endswith(".png")] == figures, "in the plan's order"
    titles = [title_and_caption((TEXTS / name).read_text(), "")[0] for name in map(caption_name, default_figures())]
    assert [image["alt"] for image in page.images] == titles


def default_figures() -> list[tuple[str, str]]:
    return [(chapter.study, path) for chapter in default_spec().chapters for path in chapter.figures]


def caption_name(figure: tuple[str, str]) -> str:
    return caption_of(*figure, Path()).name


def test_the_page_loads_nothing_from_anywhere(written):
    page = Page(written / "report.html")
    assert [url[:30] for url in page.loaded if not url.startswith("data:")] == []
    assert "script" not in page.tags
    text = (written / "report.html").read_text()
    assert not re.search(r"@import|url\(|https?://", re.sub(r"data:image/png;base64,[\w+/=]+", "", text))


def test_links_inside_the_page_lead_somewhere(written):
    page = Page(written / "report.html")
    assert len(page.links) > 10
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert not [name for name in page.ids if " " in name]


def test_findings_tables_origin_config_and_commands_are_on_the_page(written):
    page = Page(written / "report.html")
    chapters = default_spec().chapters
    assert page.text.count(FINDING) >= len(chapters), "as text, its < and & not as markup"
    assert page.text.count("100% of <it>") == sum(len(chapter.tables) for chapter in chapters)
    assert page.text.count("a & b 1.0 [0.9, 1.1]") == page.text.count("100% of <it>") > 10
    assert page.text.count("2 trials (1 ok, 1 OOM), commit abc123, A <CPU>, 2 cores") == len(chapters)
    assert "Python 3.11, torch 2.13" in page.text
    assert "seed: 0 note: aaa" in page.text
    for path in (path for chapter in chapters for path in chapter.figures):
        assert f"snakemake --cores all {written}/{path} --configfile mine.yaml" in page.text


def test_headlines_stand_in_front_of_all_findings(written):
    text = Page(written / "report.html").text
    phrases = yaml.safe_load((TEXTS / "headlines.yaml").read_text())
    front = text.partition("Findings")[0]
    assert all(" ".join(f"x{phrases[study][0]}y: 1.0".split()) in front for study in configuration.STUDIES)


def test_markdown_has_each_studys_headline_target_commit_and_command(written):
    text = (written / "REPORT.md").read_text()
    for chapter in default_spec().chapters:
        (own,) = (part for part in text.split("\n## ") if part.startswith(f"{chapter.title}: {chapter.question}"))
        assert "y: 1.0 [0.9, 1.1].**" in own
        assert f"From `{written}/{chapter.findings}`: 2 trials (1 ok, 1 OOM), commit abc123" in own
        assert f"`snakemake --cores all {written}/{chapter.findings} --configfile mine.yaml`" in own
        assert f"### Which is best?\n\n- {FINDING}\n" in own


def test_studies_that_were_not_run_are_named_and_the_others_are_shown(tmp_path, picture):
    spec = default_spec()
    results_of(spec.chapters[1], tmp_path / "results", picture)
    (tmp_path / "results" / spec.chapters[1].figures[0]).unlink()
    write_report(spec, tmp_path / "results", TEXTS, "", tmp_path / "results" / "report.html")
    page = Page(tmp_path / "results" / "report.html")
    assert page.text.count("Not run yet, or not finished.") == len(spec.chapters) - 1
    assert page.text.count("Not drawn yet.") == 1
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(page.images) == len(spec.chapters[1].figures) - 1
    said = (tmp_path / "results" / "REPORT.md").read_text()
    assert "## ablation: " in said
    assert "`snakemake --cores all ablation` runs it" in said


def test_report_before_a_run_says_to_run_first_in_one_line_and_writes_nothing(tmp_path):
    with pytest.raises(UserError, match=r"^nothing to report, as .* holds no findings yet: run make run first$"):
        write_report(default_spec(), tmp_path / "results", TEXTS, "", tmp_path / "results" / "report.html")
    assert not (tmp_path / "results").exists()


def test_the_same_results_give_the_same_bytes(written, tmp_path):
    before = [(written / name).read_bytes() for name in ("report.html", "REPORT.md")]
    write_report(default_spec(), written, TEXTS, "--configfile mine.yaml", written / "report.html")
    assert [(written / name).read_bytes() for name in ("report.html", "REPORT.md")] == before


@pytest.mark.parametrize("figure", default_figures(), ids=caption_name)
def test_every_figure_has_a_title_and_a_caption(figure):
    title, caption = title_and_caption((TEXTS / caption_name(figure)).read_text(), "")
    assert title, f"begin {caption_name(figure)} with a title, underlined with = signs"
    assert len(caption) > 40


@pytest.mark.parametrize("study", configuration.STUDIES)
def test_headlines_are_parts_of_sentences_that_the_study_writes(study):
    phrases = yaml.safe_load((TEXTS / "headlines.yaml").read_text())[study]
    code = "".join(path.read_text() for path in sorted((ROOT / "workflow" / "plumbline" / study).rglob("*.py")))
    assert [phrase for phrase in phrases if phrase not in code] == []


def test_options_of_the_commands_survive_a_shell():
    said = given_options(["my settings.yaml"], ["results=it's"])
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {said}"], capture_output=True, text=True, check=True).stdout
    assert words.splitlines() == ["--configfile", "my settings.yaml", "--config", "results=it's"]
    assert given_options([], []) == ""


WATCH = """<script>
window.faults = [];
window.addEventListener("error", event => window.faults.push(String(event.message || event.target)), true);
window.addEventListener("load", () => {
  const images = [...document.images].map(image => [image.alt, image.naturalWidth]);
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const seen = {images, wide, faults: window.faults, text: document.querySelector("#summary").innerText};
  document.documentElement.dataset.seen = JSON.stringify(seen);
});
</script>"""
"""Added to a copy of the page, to tell what a browser made of it."""


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("there is no chromium; on Debian: apt-get install chromium")
    return found


@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_shows_every_figure_and_complains_of_nothing(written, browser, tmp_path, width):
    copy = tmp_path / "copy.html"
    copy.write_text((written / "report.html").read_text().replace("<head>", f"<head>{WATCH}", 1))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    options += [f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}"]
    environment = os.environ | {"HOME": str(tmp_path), "http_proxy": "http://127.0.0.1:9"}
    command = [browser, *options, copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)
    seen = json.loads(re.search(r'data-seen="([^"]*)"', done.stdout)[1].replace("&quot;", '"').replace("&amp;", "&"))
    assert len(seen["images"]) == len(default_figures())
    assert [title for title, width in seen["images"] if not width > 0] == []
    assert seen["faults"] == []
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert "1.0 [0.9, 1.1]" in seen["text"]
    assert seen["wide"] <= 0, "nothing is wider than the window"
