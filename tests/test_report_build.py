"""The report quotes the right rows, holds all it needs, is the same twice, and names what is wrong."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.measures.table import make_table, write_table
from attention_atlas.plotting.style import new_figure, save, style
from attention_atlas.reporting.build import about, build_report, notes, plain
from attention_atlas.reporting.numbers import Tables, number, pick, quote

CONF = Path(__file__).resolve().parents[1] / "conf/report/grounding.yaml"
P_LH = np.array([[0.05, 0.10], [0.21, 0.33], [0.20, 0.30]])


class Text(HTMLParser):
    """Cells of all tables, row by row, and whether every tag is closed."""

    VOID = ("meta", "br", "img")

    def __init__(self, html):
        super().__init__()
        self.rows, self.open, self.sources, self.links = [], [], [], []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.sources += [v for k, v in attrs if k == "src"]
        self.links += [v for k, v in attrs if k == "href"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += " ".join(data.split()) + " "

    def row(self, first):
        found = [[c.strip() for c in row] for row in self.rows if row and row[0].strip().startswith(first)]
        assert len(found) == 1, (first, found)
        return found[0]


def heads(metric, kind, condition, values_LH, chance=0.055, n=720):
    base = {"measure": metric, "kind": kind, "condition": condition, "n": n, "chance": chance}

    def row(layer, head, v):
        return base | {"layer": layer, "head": head, "value": v, "ci_low": v - 0.01, "ci_high": v + 0.01}

    rows = [row(-1, -1, values_LH.mean())] + [row(i, -1, v.mean()) for i, v in enumerate(values_LH)]
    return rows + [row(i, j, v) for (i, j), v in np.ndenumerate(values_LH)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of the shape that the study's stages write."""
    folder = tmp_path_factory.mktemp("results") / "grounding"
    rows = heads("grounding", "cross", "phrases", P_LH) + heads(
        "grounding", "cross", "ratio_of_sums", P_LH - 0.01
    )
    rows.append({"measure": "grounding_held_out", "kind": "cross", "condition": "phrases", "value": 0.31})
    rows.append(
        {"measure": "grounding_chance", "kind": "cross", "condition": "area", "value": 0.09, "n": 720}
    )
    for kind in ("decoder_self", "cross"):
        rows += heads("entropy", kind, "visible", 1 - P_LH, chance=1.0)
    rows += heads("pos_share", "decoder_self", "DET+ADJ+NOUN", P_LH)
    rows += heads("relations", "decoder_self", "a rel→target", P_LH)
    pair = {"kind": "decoder_self", "condition": "DET+ADJ+NOUN", "against": "VERB+ADP", "n": 6}
    rows.append(pair | {"measure": "pos_correlation", "value": -0.512, "ci_low": -0.6, "ci_high": -0.4})
    rows.append(pair | {"measure": "pos_correlation", "statistic": "p", "value": 0.00012})
    write_table(folder / "tables/metrics.csv", make_table(rows))
    texts = []
    for i, model in enumerate(("object_relation", "blind")):
        for j, metric in enumerate(("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "CIDEr", "WMD")):
            row = {"model": model, "measure": metric, "n": 15, "value": 10.0 * i + j + 0.25}
            if metric == "METEOR":
                row |= {"value": None, "condition": "not computed: needs Java"}
            texts.append(row)
            if model == "object_relation":
                texts.append(row | {"against": "blind", "value": -10.0, "ci_low": -11.0, "ci_high": -9.0})
    write_table(folder / "tables/captions.csv", make_table(texts))
    links = [
        {"model": model, "measure": metric, "condition": condition, "value": 0.5, "n": 90, "chance": 1 / 36}
        for model in ("glove_multiply", "glove_add", "bertscore", "sentence_transformer")
        for metric in ("mAP@30", "accuracy")
        for condition in ("all", "linkable")
    ]
    write_table(folder / "tables/linkers.csv", make_table(links))
    summary = {
        "about": {"examples": 1500, "relations": {"region": 12, "distance": 1}, "linker": "", "x": 2.5}
    }
    (folder / "metrics.json").write_text(json.dumps(summary))
    with style():
        drawn = ("fig3_entropy", "fig4_nouns", "fig5_pos", "fig6_relations", "causes", "layers", "learning")
        for name in drawn:
            figure = new_figure(1, 1)
            figure.subplots()
            save(figure, folder / "figures" / name)
    return folder.parent


@pytest.fixture(scope="module")
def spec():
    return OmegaConf.to_container(OmegaConf.load(CONF), resolve=True)


@pytest.fixture(scope="module")
def page(results, spec):
    build_report({"grounding": spec}, results, results / "report.html", profile="mini")
    return (results / "report.html").read_text()


def test_headlines_quote_the_paper_and_the_right_row(page):
    text = Text(page)
    # Layer means 7.5, 27, 25 %: the highest layer is the second; the best head is layer 2, head 2.
    assert text.row("Grounding of nouns, first layer")[1:7] == [
        "16 %",
        "7.5 %",
        "[6.5, 8.5]",
        "5.5",
        "720",
        "layer 1",
    ]
    assert text.row("Grounding of nouns, deeper")[1:4] == ["29 %", "27.0 %", "[26.0, 28.0]"]
    best = text.row("Grounding of nouns, best head")
    assert best[1:3] == ["33 % (layer 6, head 2)", "33.0 %"] and best[6] == "layer 2, head 2"
    assert text.row("the best head, phrases pooled")[1:3] == ["—", "32.0 %"]
    correlation = text.row("Correlation of the two sets")
    assert correlation[1:4] == ["−0.71", "−0.51", "[−0.60, −0.40]"] and correlation[5] == "6"
    assert text.row("its p value")[1:3] == ["1.7 × 10⁻⁸", "1.2 × 10⁻⁴"]
    assert text.row("Entropy of cross-attention, last")[1:3] == ["lower (Fig. 3b)", "0.75"]


def test_tables_show_both_numbers_and_say_what_is_missing(page):
    text = Text(page)
    ours = text.row("multi-modal transformer")
    assert ours[1] == "39.68 0.25" and ours[5] == "14.97 —" and ours[8] == "15"
    assert text.row("blind (no image)")[1] == "10.25"
    baseline = text.row("CNN + LSTM + LSTM")  # has no rows in captions.csv
    assert "(not run)" in baseline[0] and baseline[1] == "25.10"
    assert "not computed: needs Java" in page
    assert text.row("sentence transformer")[1:3] == ["0.313 0.500 chance 0.028", "44.39 50.00 chance 2.78"]


def test_every_number_of_the_paper_is_there(page):
    transformer = ["39.68", "24.12", "14.71", "8.33", "14.97", "17.54", "8.66"]
    baseline = ["25.10", "13.88", "8.11", "4.61", "11.30", "26.38", "7.61"]
    linking = ["0.095", "0.276", "0.232", "0.313", "13.78", "41.84", "44.39"]
    for value in transformer + baseline + linking:
        assert f">{value}<" in page, value


def test_the_page_needs_nothing_else_and_is_the_same_twice(page, results, spec):
    text = Text(page)
    assert len(text.sources) == 7 and all(s.startswith("data:image/png;base64,") for s in text.sources)
    assert "http" not in page and str(results) not in page
    for link in text.links:
        assert link == "#grounding" or (results / link).exists(), link
    build_report({"grounding": spec}, results, results / "again.html", profile="mini")
    assert (results / "again.html").read_text() == page


def test_entries_of_another_profile_are_left_out(results, spec, tmp_path):
    changed = dict(spec)
    for part in ("headlines", "tables", "summaries", "figures"):
        extra = {
            "name": "not there",
            "title": "not there",
            "table": "none",
            "file": "none",
            "profiles": ["paper"],
        }
        changed[part] = [*spec[part], extra]
    build_report({"grounding": changed}, results, tmp_path / "page.html", profile="mini")
    assert "not there" not in (tmp_path / "page.html").read_text()


def test_a_table_that_no_row_fits_is_an_error_unless_its_absence_is_explained(results, spec, tmp_path):
    table = {"title": "T", "table": "captions", "columns": [{"label": "c", "where": {}}]}
    table["rows"] = [{"label": "ours", "models": ["none"], "paper": ["7.77"]}]
    wrong = {"grounding": spec | {"tables": [table]}}
    with pytest.raises(AtlasError, match="T: no row of table 'captions' matches"):
        build_report(wrong, results, tmp_path / "page.html")
    absent = table | {"table": "gold", "absent": "Supply a gold file."}
    build_report({"grounding": spec | {"tables": [absent]}}, results, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Supply a gold file." in page and "7.77" in page


def test_profiles_choose_notes_and_about_lists_counts(page, results, spec):
    assert "proposal oracle" in page and "Smoke profile:" not in page
    build_report({"grounding": spec}, results, results / "smoke.html", profile="smoke")
    assert "Smoke profile:" in (results / "smoke.html").read_text()
    assert notes(["a", {"text": "b", "profiles": ["paper"]}], "smoke") == ["a"]
    rows = dict(about(results / "grounding/metrics.json"))
    assert rows == {"examples": "1,500", "relations": "12 region, 1 distance", "x": "2.50"}


def test_another_study_is_one_more_yaml(results):
    """No line of code knows a study: any title, table and figure come from its YAML; text is escaped."""
    other = {
        "study": "grounding",
        "title": "Other <study>",
        "headlines": [{"name": "one", "table": "captions", "where": {"model": "blind", "measure": "BLEU-2"}}],
        "summaries": [{"title": "S", "table": "metrics", "where": {"measure": "relations"}}],
    }
    build_report({"other": other}, results, results / "other.html")
    text = Text((results / "other.html").read_text())
    assert text.row("one")[2] == "11.25"
    assert text.row("decoder_self")[1:3] == ["a rel→target", "0.20"]
    assert "Other &lt;study&gt;" in (results / "other.html").read_text()


def test_picks(results):
    rows = Tables(results / "grounding").rows("metrics", {"measure": "grounding", "condition": "phrases"})
    found = {
        which: quote(pick(rows, which, "x"), 100, 1) for which in ("last layer", "lowest head", "overall")
    }
    assert (found["last layer"].value, found["last layer"].where) == ("25.0", "layer 3")
    assert (found["lowest head"].value, found["lowest head"].where) == ("5.0", "layer 1, head 1")
    assert (found["overall"].value, found["overall"].where) == ("19.8", "")
    assert pick(rows, "lowest layer", "x")["layer"] == 0
    assert number(-1234.5, 1) == "−1234.5" and number(-0.001, 2) == "0.00" and number(0.004, 2) == "0.00"
    assert number(0.004, 2, powers=True) == "4.0 × 10⁻³"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titel": "x"}, "titel: unknown key; did you mean 'title'"),
        ({"study": "nothing"}, "nothing: no such folder"),
        ({"figures": [{"file": "fig9"}]}, r"fig9\.png: no such figure"),
        ({"headlines": [{"name": "x", "table": "metrcs"}]}, "table 'metrcs'"),
        (
            {"headlines": [{"name": "x", "table": "captions", "where": {"measure": "BLEU-9"}}]},
            "x: 0 rows match",
        ),
        (
            {"headlines": [{"name": "x", "table": "captions", "where": {"measure": "BLEU-1"}}]},
            "x: 2 rows match",
        ),
        ({"headlines": [{"name": "x", "table": "captions", "where": {"layer": 1}}]}, "no column 'layer'"),
        ({"headlines": [{"name": "x", "table": "captions", "pick": "best"}]}, "pick: 'best'"),
        ({"headlines": [{"name": "x"}]}, "x: table: missing"),
        ({"summaries": [{"title": "s", "table": "metrics", "where": {"measure": "no"}}]}, "s: no rows match"),
    ],
)
def test_faults_are_named_in_one_line(results, change, message):
    with pytest.raises(AtlasError, match=message) as error:
        build_report({"g": {"study": "grounding"} | change}, results, results / "bad.html")
    assert "\n" not in str(error.value) and not (results / "bad.html").exists()


def test_a_paper_number_of_no_column_and_empty_folders(results, tmp_path, spec):
    table = {
        "title": "T", "table": "captions", "columns": [{"label": "B", "where": {"measure": "BLEU-1"}}],
        "rows": [{"models": ["blind"], "paper": ["1", "2"]}],
    }  # fmt: skip
    with pytest.raises(ConfigError, match="paper: 2 numbers for 1 columns"):
        build_report({"g": {"study": "grounding", "tables": [table]}}, results, tmp_path / "r.html")
    with pytest.raises(ConfigError, match="no study"):
        build_report({}, results, tmp_path / "r.html")
    (tmp_path / "grounding").mkdir()
    with pytest.raises(AtlasError, match="contains no tables"):
        build_report({"grounding": spec}, tmp_path, tmp_path / "r.html")
    (tmp_path / "metrics.json").write_text("[")
    with pytest.raises(AtlasError, match=r"metrics\.json: not JSON"):
        about(tmp_path / "metrics.json")


def test_a_sparse_table_leaves_cells_of_absent_members_empty(results, tmp_path):
    columns = [{"label": "B", "where": {"measure": "BLEU-1"}}, {"label": "N", "where": {"measure": "BLEU-9"}}]
    table = {"title": "T", "table": "captions", "columns": columns, "rows": [{"models": ["blind"]}]}
    with pytest.raises(AtlasError, match="T, blind, N: 0 rows match"):
        build_report({"g": {"study": "grounding", "tables": [table]}}, results, tmp_path / "r.html")
    sparse = {"study": "grounding", "tables": [table | {"sparse": True}]}
    build_report({"g": sparse}, results, tmp_path / "r.html")
    row = Text((tmp_path / "r.html").read_text()).row("blind")
    assert row[1].strip() == "10.25" and "10.25" not in row[2]
    # A table without any of our numbers is an error, whichever condition matches nothing.
    for where in ({"measure": "BLEU-9"}, {"kind": "nothing", "measure": "BLEU-1", "condition": "x"}):
        nothing = table | {"sparse": True, "columns": [{"label": "N", "where": where}]}
        with pytest.raises(AtlasError, match="no row of table 'captions' matches"):
            build_report({"g": {"study": "grounding", "tables": [nothing]}}, results, tmp_path / "r.html")


def test_a_column_and_a_row_select_by_different_facets(tmp_path):
    rows = [
        {
            "model": "mac",
            "kind": "breakdown",
            "measure": "accuracy",
            "condition": "type",
            "alignment": alignment,
            "group": asked,
            "value": v,
        }
        for alignment, asked, v in (("dot", "Exist", 61.0), ("dot", "Count", 62.0), ("cosine", "Count", 63.0))
    ]
    rows.append({"model": "mac", "kind": "score", "measure": "accuracy", "alignment": "dot", "value": 1.0})
    (tmp_path / "alignment/tables").mkdir(parents=True)
    write_table(tmp_path / "alignment/tables/metrics.csv", make_table(rows))
    asked = {"kind": "breakdown", "condition": "type", "group": "Count"}
    table = {
        "title": "T", "table": "metrics", "where": {"kind": "score"}, "digits": 1,
        "columns": [{"label": "count", "where": asked}],
        "rows": [{"label": "dot", "models": ["mac"], "where": {"alignment": "dot"}}],
    }  # fmt: skip
    build_report({"a": {"study": "alignment", "tables": [table]}}, tmp_path, tmp_path / "r.html")
    assert "62.0" in Text((tmp_path / "r.html").read_text()).row("dot")[1]


def test_conditions_that_no_row_names_get_a_row_of_their_own(tmp_path):
    rows = [
        {"model": m, "kind": "score", "measure": "accuracy", "alignment": c, "value": v}
        for m, c, v in (("mac", "dot", 61.0), ("mac", "mine", 62.0), ("mac_blind", "none", 40.0))
    ]
    (tmp_path / "alignment/tables").mkdir(parents=True)
    write_table(tmp_path / "alignment/tables/metrics.csv", make_table(rows))
    table = {
        "title": "T", "table": "metrics", "where": {"kind": "score"}, "digits": 1, "others": ["mac"],
        "columns": [{"label": "accuracy", "where": {"measure": "accuracy"}}],
        "rows": [{"label": "dot product", "models": ["mac"], "where": {"alignment": "dot"}}],
    }  # fmt: skip
    build_report({"a": {"study": "alignment", "tables": [table]}}, tmp_path, tmp_path / "r.html")
    text = Text((tmp_path / "r.html").read_text())
    assert "61.0" in text.row("dot product")[1] and "62.0" in text.row("mine")[1]
    assert "40.0" not in (tmp_path / "r.html").read_text()


def test_a_study_without_a_yaml_shows_all_its_figures(results, tmp_path):
    spec = plain("grounding", results)
    names = sorted(path.stem for path in (results / "grounding/figures").glob("*.png"))
    assert names and [figure["file"] for figure in spec["figures"]] == names
    build_report({"grounding": spec}, results, tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text().count("data:image/png") == len(names)
