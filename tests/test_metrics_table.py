"""The metric table: round trip, order, faults by line; the stage's summary."""

from __future__ import annotations

import json

import numpy as np
import pytest
from metrics_naive import random_study

from attention_atlas.errors import AtlasError
from attention_atlas.measures.entropy import Entropy
from attention_atlas.measures.metric import measure_all
from attention_atlas.measures.results import summarise, write_results
from attention_atlas.measures.table import (
    COLUMNS,
    FACETS,
    head_matrix,
    make_table,
    measured,
    read_table,
    rows_of,
    select,
    write_table,
)
from attention_atlas.studies.grounding.grounding import Grounding
from attention_atlas.studies.metric_table import table_of


def rows():
    return [
        {"measure": "p", "layer": layer, "head": head, "value": layer + head / 10, "n": 3}
        for layer in range(2)
        for head in range(3)
    ]


def test_round_trip_keeps_types_order_and_empty_cells(tmp_path):
    table = make_table([*rows(), {"measure": "q", "condition": "NA", "value": 1 / 3}])
    write_table(tmp_path / "m.csv", table)
    back = read_table(tmp_path / "m.csv")
    assert list(back.columns) == COLUMNS
    assert back["condition"].iloc[-1] == "NA" and back["layer"].iloc[-1] == -1
    assert back["value"].iloc[-1] == pytest.approx(1 / 3, rel=1e-5) and np.isnan(back["ci_low"].iloc[-1])
    write_table(tmp_path / "again.csv", back)
    assert (tmp_path / "m.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()


def test_head_matrix_needs_every_head_once():
    matrix = head_matrix(make_table(rows()))
    np.testing.assert_allclose(matrix, [[0, 0.1, 0.2], [1, 1.1, 1.2]])
    with pytest.raises(AtlasError, match="layer 1, head 2: 0 rows"):
        head_matrix(make_table(rows()[:-1]))
    with pytest.raises(AtlasError, match="layer 0, head 0: 2 rows"):
        head_matrix(make_table([*rows(), {"measure": "q", "layer": 0, "head": 0}]))
    with pytest.raises(AtlasError, match="no row per layer and head"):
        head_matrix(make_table([{"measure": "q"}]))


def test_faults_are_named():
    with pytest.raises(AtlasError, match="valeu: unknown column"):
        make_table([{"measure": "p", "valeu": 1}])
    with pytest.raises(AtlasError, match="two rows for"):
        make_table([*rows(), rows()[0]])
    with pytest.raises(AtlasError, match="row 0 is above"):
        make_table([{"measure": "p", "ci_low": 2, "ci_high": 1}])
    with pytest.raises(AtlasError, match="below -1"):
        make_table([{"measure": "p", "layer": -2}])
    with pytest.raises(AtlasError, match="row 0 has no name"):
        make_table([{"value": 1}])
    with pytest.raises(AtlasError, match="no such column"):
        select(make_table(rows()), layers=1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ci_low", "ci_lo", "column 'ci_low' is missing"),
        (",0.1,", ",much,", "value: line 3: 'much' is not a number"),
        (",0,1,p,", ",0,1.5,p,", "head: line 3: '1.5' is not a number"),
        (",0,1,p,", ",0,,p,", "head: line 3: '' is not a number"),
    ],
)
def test_bad_files_are_named_by_line(tmp_path, old, new, message):
    path = tmp_path / "m.csv"
    write_table(path, make_table(rows()))
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(AtlasError, match=message) as error:
        read_table(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(AtlasError, match="no such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AtlasError, match="not a CSV table"):
        read_table(tmp_path / "x.csv")


def test_results_are_the_same_bytes_twice_and_the_numbers_of_mlflow(tmp_path):
    metrics = {"grounding": Grounding(), "entropy": Entropy()}
    table = measure_all(metrics, random_study())
    numbers = [write_results(tmp_path / name, table, {"images": 3}) for name in "ab"]
    for name in ("tables/metrics.csv", "metrics.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    summary = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert summary["about"] == {"images": 3}
    row = measured(table, measure="grounding", condition="phrases", layer=-1, head=-1).iloc[0]
    (of_model,) = summary["metrics"].values()
    (of_data,) = of_model.values()
    assert of_data["cross grounding, phrases"] == pytest.approx(row["value"], rel=1e-5)
    assert sorted(numbers[0].values()) == sorted(of_data.values()) and numbers[0] == numbers[1]


def test_the_summary_leaves_out_groups_seeds_and_statistics():
    base = {"model": "m", "data": "d", "kind": "score", "measure": "accuracy"}
    facets = ({"group": "what"}, {"seed": "0"}, {"statistic": "sd"}, {"against": "x"}, {"layer": 0})
    rows = [base | {"value": 1.0}, *(base | f | {"value": 2.0} for f in facets)]
    rows += [base | {"alignment": "dot", "input": "other", "value": 3.0}]
    found = summarise(make_table(rows))["metrics"]["m"]["d"]
    assert found == {"score accuracy": 1.0, "score accuracy, dot, other": 3.0}


def test_a_facet_that_is_not_named_is_empty():
    base = {"measure": "accuracy", "condition": "c", "value": 1.0}
    facets = [{}, *({name: "x"} for name in FACETS)]
    table = make_table(base | f for f in facets)
    assert len(measured(table, measure="accuracy")) == 1
    for name in FACETS:
        assert list(measured(table, **{name: "x"})[name]) == ["x"]
        assert len(measured(table, **{name: None})) == 2
    with pytest.raises(AtlasError, match="no rows with measure = acuracy, group = y; run that measure"):
        rows_of(table, measure="acuracy", group="y")


def test_one_pass_gives_what_each_metric_gives_alone():
    study = random_study()
    both = measure_all({"g": Grounding(), "e": Entropy()}, study)
    alone = Entropy()(study)
    np.testing.assert_array_equal(select(both, measure="entropy")["value"], alone["value"])


def test_intervals_resample_images_not_examples():
    """Examples e0 and e1 share an image: three images, and one image alone has no interval."""
    study = random_study()
    assert study.images == 3
    single = random_study(examples=2)
    assert single.images == 1
    rows = select(Grounding()(single), condition="phrases")
    assert rows["value"].notna().all()
    assert rows[["ci_low", "ci_high"]].isna().all(axis=None)


def test_measures_run_in_order_for_each_record():
    class Named:
        def __init__(self, name):
            self.name = name

        def rows(self, record):
            yield {"measure": self.name, "data": record, "value": 1.0}
            if record == "b":
                yield {"measure": self.name, "data": record, "model": "own", "value": 2.0}

    frame = table_of({"x": Named("x"), "y": Named("y")}, iter("ab"), study="s", model="m")
    seen = list(zip(frame["data"], frame["measure"], frame["model"]))
    assert seen == [("a", "x", "m"), ("a", "y", "m"), *(("b", n, m) for n in "xy" for m in ("m", "own"))]
    assert set(frame["study"]) == {"s"}
