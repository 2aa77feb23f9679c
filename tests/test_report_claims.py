"""Each outcome of a paper's claim, and that every number that conf/report quotes has been given its claim."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.measures.table import make_table, write_table
from attention_atlas.reporting.build import build_report
from attention_atlas.reporting.claims import AS_IN_PAPER, CONTRARY, NOT_DECIDED, Number, difference, judge

CONF = sorted((Path(__file__).resolve().parents[1] / "conf").rglob("report/*.yaml"))
FIVE = Number(5.0, 4.0, 6.0, chance=3.0, source=1)
OTHERS = {
    "low": Number(1.0, 0.5, 1.5, source=2),
    "near": Number(4.5, 3.5, 5.5, source=3),
    "high": Number(9.0, 8.0, 10.0, source=4),
    "bare": Number(2.0, source=5),
    "self": FIVE,
}


@pytest.mark.parametrize(
    ("claim", "verdict", "reason"),
    [
        ({"greater_than": 0}, AS_IN_PAPER, "interval [4.00, 6.00]"),
        ({"less_than": 0}, CONTRARY, "interval [4.00, 6.00]"),
        ({"greater_than": 4.5}, NOT_DECIDED, "interval [4.00, 6.00] includes 4.50"),
        ({"greater_than": "chance"}, AS_IN_PAPER, "interval [4.00, 6.00]"),
        ({"less_than": "chance"}, CONTRARY, "interval [4.00, 6.00]"),
        ({"greater_than": "low"}, AS_IN_PAPER, "interval of the difference [2.88, 5.12]"),
        ({"less_than": "low"}, CONTRARY, "interval of the difference [2.88, 5.12]"),
        ({"greater_than": "high"}, CONTRARY, "interval of the difference [−5.41, −2.59]"),
        ({"less_than": "high"}, AS_IN_PAPER, "interval of the difference [−5.41, −2.59]"),
        ({"less_than": "near"}, NOT_DECIDED, "interval of the difference [−0.91, 1.91] includes 0"),
        ({"greater_than": "bare"}, NOT_DECIDED, "no interval"),
        ({"greater_than": "self"}, CONTRARY, "both are the same row"),
        ({"greater_than": ["low", "chance"]}, AS_IN_PAPER, ""),
        (
            {"greater_than": ["low", "near"]},
            NOT_DECIDED,
            "interval of the difference [−0.91, 1.91] includes 0",
        ),
        ({"greater_than": ["near", "high"]}, CONTRARY, "interval of the difference [−5.41, −2.59]"),
        # chance 3; 1.2 × 3 = 3.6; 3 + 1.5 = 4.5
        ({"greater_than": {"of": "chance", "times": 1.2}}, AS_IN_PAPER, "interval [4.00, 6.00]"),
        (
            {"greater_than": {"of": "chance", "plus": 1.5}},
            NOT_DECIDED,
            "interval [4.00, 6.00] includes 4.50",
        ),
        # 3 × low is 3 [1.5, 4.5]: 5 − 3 ∓ sqrt(1 + 1.5²); low + 8 is 9 [8.5, 9.5]: 5 − 9 ∓ sqrt(1 + 0.5²)
        (
            {"greater_than": {"of": "low", "times": 3}},
            AS_IN_PAPER,
            "interval of the difference [0.20, 3.80]",
        ),
        (
            {"greater_than": {"of": "low", "plus": 8}},
            CONTRARY,
            "interval of the difference [−5.12, −2.88]",
        ),
        (
            {"greater_than": {"of": "self", "times": 0.5}},
            AS_IN_PAPER,
            "interval of the difference [1.38, 3.62]",
        ),
    ],
)
def test_outcomes(claim: dict[str, object], verdict: str, reason: str) -> None:
    found = judge(claim, FIVE, OTHERS, "x")
    assert (found.verdict, found.reason) == (verdict, reason)


def test_difference_by_hand() -> None:
    """Zou and Donner: 5 − 1 less sqrt((5 − 4)² + (3 − 1)²), more sqrt((8 − 5)² + (1 − 0)²)."""
    low, high = difference(Number(5.0, 4.0, 8.0), Number(1.0, 0.0, 3.0))
    assert (low, high) == (pytest.approx(4 - math.sqrt(5)), pytest.approx(4 + math.sqrt(10)))


def test_shares_of_resamples_and_missing_numbers() -> None:
    claim = {"found_in_resamples": 95}
    found = [judge(claim, Number(v), {}, "x").verdict for v in (100.0, 95.0, 94.0, 6.0, 5.0, 0.0)]
    assert found == [AS_IN_PAPER, AS_IN_PAPER, NOT_DECIDED, NOT_DECIDED, CONTRARY, CONTRARY]
    nothing = Number(math.nan)
    assert judge(claim, nothing, {}, "x").reason == "no number"
    assert judge({"greater_than": 0}, nothing, {}, "x").reason == "no number"
    assert judge({"greater_than": "chance"}, Number(1.0, 0.5, 1.5), {}, "x").reason == "no chance level"


def test_a_value_without_an_interval_is_decided_by_its_p_value() -> None:
    claim = {"greater_than": 0, "p": "its p"}
    verdicts = [
        judge(claim, Number(value), {"its p": Number(p, digits=3)}, "x")
        for value, p in ((0.8, 0.01), (-0.8, 0.01), (0.8, 0.2), (math.nan, 0.01))
    ]
    assert [v.verdict for v in verdicts] == [AS_IN_PAPER, CONTRARY, NOT_DECIDED, NOT_DECIDED]
    assert [v.reason for v in verdicts] == ["p = 0.010", "p = 0.010", "p = 0.200", "no number"]
    for wrong in ({"greater_than": 0, "p": "its q"}, {"greater_than": "chance", "p": "its p"}):
        with pytest.raises(ConfigError, match="p: give the name of another entry"):
            judge(wrong, FIVE, {"its p": Number(0.01)}, "x")


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"greater_then": 0}, "x: claim: unknown 'greater_then'; did you mean 'greater_than'"),
        (
            {"greater_than": "lowe"},
            "x: claim: 'lowe' is neither a number nor the name of an entry; did you mean 'low'",
        ),
        ({"greater_than": True}, "'True' is neither a number nor the name of an entry"),
        ({"found_in_resamples": 5}, "5 is not in 50 to 100 %"),
        ({"greater_than": {"of": "low", "time": 2}}, "unknown 'time'; did you mean 'times'"),
        ({"greater_than": {"times": 2}}, "give {of: chance or the name of an entry"),
        ({"greater_than": {"of": "low", "times": "2"}}, "give {of: chance or the name of an entry"),
        ({"greater_than": {"of": "lowe"}}, "'lowe' is neither a number nor the name of an entry"),
        ("greater", "give one of greater_than, less_than"),
        ({"greater_than": 0, "less_than": 1}, "give one of greater_than, less_than"),
    ],
)
def test_malformed_claims_are_named(claim: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        judge(claim, FIVE, OTHERS, "x")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [
        {"model": m, "measure": "r", "value": v, "ci_low": v - 0.1, "ci_high": v + 0.1, "chance": 0.2}
        for m, v in (("a", 0.5), ("b", 0.55), ("c", 0.9))
    ]
    write_table(tmp_path / "toy/tables/metrics.csv", make_table(rows))
    return tmp_path


def entry(model: str, **more: object) -> dict[str, object]:
    return {"name": model, "table": "metrics", "where": {"model": model}, "factor": 100, "digits": 1, **more}


def test_the_page_prints_the_outcome_in_the_unit_of_the_line(results: Path) -> None:
    lines = [
        entry("a", claim={"greater_than": "c"}),
        entry("b", claim={"less_than": 60}),
        entry("c", claim={"greater_than": "chance"}),
    ]
    columns = [{"label": "r", "where": {"measure": "r"}}]
    table = {
        "title": "T", "table": "metrics", "columns": columns, "factor": 100, "digits": 1,
        "rows": [{"label": m, "models": [m]} for m in "abd"],
    }  # fmt: skip
    base = {"column": "r", "row": "a"}
    table["claims"] = [base | {"greater_than": "b"}, base | {"less_than": "d"}]
    build_report({"toy": {"headlines": lines, "tables": [table]}}, results, results / "r.html")
    page = " ".join((results / "r.html").read_text().split())
    assert 'above “c”: <span class="contrary">contrary to the paper</span>' in page
    assert "(interval of the difference [−54.1, −25.9])" in page
    assert "below 60: <span>not decided</span> <span class" in page and "[45.0, 65.0] includes 60.0" in page
    assert "above chance: <span>as in the paper</span>" in page
    assert "r, a: above “b”: <span>not decided</span>" in page
    assert 'r, a: below “d”: <span>not decided</span> <span class="ci">(no number)' in page


def test_claims_of_a_table_name_its_rows_and_columns(results: Path) -> None:
    table = {
        "title": "T", "table": "metrics", "rows": [{"models": ["a"]}],
        "columns": [{"label": "r", "where": {"measure": "r"}}],
    }  # fmt: skip
    for claim, message in (
        ({"row": "x", "column": "r", "greater_than": 0}, "T: claims: row: unknown 'x'"),
        ({"row": "a", "column": "s", "greater_than": 0}, "T: claims: column: unknown 's'"),
        ({"column": "r", "greater_than": 0}, "T: row: missing"),
        ({"row": "a", "column": "r"}, "T: claim: give one of"),
    ):
        spec = {"toy": {"tables": [table | {"claims": [claim]}]}}
        with pytest.raises(AtlasError, match=message):
            build_report(spec, results, results / "r.html")


def page_with(targets: list[dict[str, object]], results: Path, profile: str = "mini", **more: object) -> str:
    spec = {"targets": {"profiles": ["mini"], "lines": targets}} | more
    build_report({"toy": spec}, results, results / "r.html", profile)
    return " ".join((results / "r.html").read_text().split())


def test_targets_are_met_or_not(results: Path) -> None:
    """The numbers of a, b and c are 50, 55 and 90 ± 10, chance 20."""
    other = {"name": "the third", "where": {"model": "c"}}
    lines = [
        entry("c", target={"greater_than": {"of": "chance", "times": 2.5}}),
        entry("a", target={"greater_than": {"of": "the third", "times": 0.9, "plus": 5}}, other=other),
        entry("b", target={"greater_than": ["chance", "headline"]}),
        entry("d", target={"greater_than": 5}, sparse=True),
    ]
    page = page_with(lines, results, headlines=[entry("a") | {"name": "headline"}])
    assert 'above 2.5 × chance: <span>met</span> <span class="ci">(interval [80.0, 100.0])' in page
    # 50 − (.9 · 90 + 5) = −36, ∓ sqrt(10² + 9²)
    assert 'above 0.9 × “the third” + 5: <span class="contrary">not met</span>' in page
    assert "(interval of the difference [−49.5, −22.5])" in page and "the third: 90.0 [80.0, 100.0]" in page
    assert "above chance and “headline”: <span>not decided</span>" in page
    assert '<td>d</td> <td class="num"><b>not measured</b>' in page
    assert 'id="targets"' not in page_with(lines, results, "paper")


def test_the_number_to_compare_with_may_be_another_layer(tmp_path: Path) -> None:
    rows = [
        {"measure": "r", "layer": layer, "value": v, "ci_low": v - 0.1, "ci_high": v + 0.1}
        for layer, v in enumerate((0.2, 0.9))
    ]
    write_table(tmp_path / "toy/tables/metrics.csv", make_table(rows))
    other = {"name": "first layer", "pick": "first layer"}
    line = {"name": "r", "table": "metrics", "pick": "last layer", "other": other}
    page = page_with([line | {"target": {"greater_than": "first layer"}}], tmp_path)
    assert "above “first layer”: <span>met</span>" in page and "first layer: 0.20 [0.10, 0.30]" in page


def test_faults_of_targets_are_named(results: Path) -> None:
    for line, message in (
        (entry("a"), "a: target: missing"),
        (entry("d", target={"greater_than": 5}), "d: 0 rows match"),
        (entry("a", target={"greater_than": 5}, other={"where": {"model": "b"}}), "a: name: missing"),
        (entry("a", target={"greater_than": "c"}), "a: claim: 'c' is neither a number nor the name"),
    ):
        with pytest.raises(AtlasError, match=message):
            page_with([line], results)


@pytest.mark.parametrize("path", CONF, ids=lambda p: p.stem)
def test_every_number_of_a_paper_has_its_claim(path: Path) -> None:
    """A quoted number has `claim`, or `claim: null` where the paper states no direction; claims are well
    formed and name entries of this file."""
    spec = OmegaConf.to_container(OmegaConf.load(path))
    lines = spec.get("headlines") or []
    names = [line["name"] for line in lines]
    for line in lines:
        if line.get("paper", "planned") != "planned":
            assert "claim" in line, f"{path.name}: {line['name']}: paper without claim"
        if line.get("claim") is not None:
            others = {n: OTHERS["near"] for n in names if names.count(n) == 1}
            judge(line["claim"], FIVE, others, line["name"])
    for line in (spec.get("targets") or {"lines": []})["lines"]:
        others = {n: OTHERS["near"] for n in names if names.count(n) == 1}
        others |= {line["other"]["name"]: OTHERS["low"]} if "other" in line else {}
        judge(line["target"], FIVE, others, line["name"])
    for table in spec.get("tables") or []:
        rows = {str(r.get("label", r["models"][0])): OTHERS["near"] for r in table["rows"]}
        for one in table.get("claims") or []:
            assert one["row"] in rows and one["column"] in [c["label"] for c in table["columns"]]
            judge({k: v for k, v in one.items() if k not in ("row", "column")}, FIVE, rows, table["title"])
