"""CLEVR: a hand-written scene, programs executed by hand, the five types, boxes, what is wrong."""

from __future__ import annotations

import copy
import json

import pytest

from attention_atlas.data.clevr import read_clevr, read_templates
from attention_atlas.data.clevr_program import question_type, run
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.training.tasks.compositional import TYPES

# From left to right: a large red rubber cube, a small red metal sphere, a small blue rubber cube.
OBJECTS = [
    {
        "size": "large",
        "color": "red",
        "material": "rubber",
        "shape": "cube",
        "pixel_coords": [100, 150, 10.5],
    },
    {
        "size": "small",
        "color": "red",
        "material": "metal",
        "shape": "sphere",
        "pixel_coords": [240, 100, 12.25],
    },
    {
        "size": "small",
        "color": "blue",
        "material": "rubber",
        "shape": "cube",
        "pixel_coords": [470, 200, 9.0],
    },
]
RELATIONSHIPS = {
    "left": [[], [0], [0, 1]],
    "right": [[1, 2], [2], []],
    "front": [[2], [0, 2], []],
    "behind": [[1], [], [0, 1]],
}


def steps(*rows):
    """(function, inputs, words) -> a program as in the questions files."""
    return [{"function": f, "inputs": list(i), "value_inputs": list(w)} for f, i, w in rows]


SCENE = ("scene", (), ())
RED = [SCENE, ("filter_color", (0,), ("red",))]
CUBES = [("scene", (), ()), ("filter_shape", (2,), ("cube",))]  # as steps 2 and 3
BLUE_CUBE = [
    SCENE,
    ("filter_color", (0,), ("blue",)),
    ("filter_shape", (1,), ("cube",)),
    ("unique", (2,), ()),
]
PROGRAMS = {
    "Are there red things?": ([*RED, ("exist", (1,), ())], "Exist", "yes", [0, 1]),
    "How many things are red?": ([*RED, ("count", (1,), ())], "Count", "2", [0, 1]),
    "What is left of the blue cube made of? The small one.": (
        [*BLUE_CUBE, ("relate", (3,), ("left",)), ("filter_size", (4,), ("small",)), ("unique", (5,), ()),
         ("query_material", (6,), ())],
        "Query Attribute", "metal", [1],
    ),
    "Are there as many red things as cubes?": (
        [*RED, *CUBES, ("count", (1,), ()), ("count", (3,), ()), ("equal_integer", (4, 5), ())],
        "Compare Integer", "yes", [0, 1, 2],
    ),
    "Are there fewer red things than red cubes?": (
        [*RED, SCENE, ("filter_color", (2,), ("red",)), ("filter_shape", (3,), ("cube",)),
         ("count", (1,), ()), ("count", (4,), ()), ("less_than", (5, 6), ())],
        "Compare Integer", "no", [0, 1],
    ),
    "Are there more red things than red cubes?": (
        [*RED, SCENE, ("filter_color", (2,), ("red",)), ("filter_shape", (3,), ("cube",)),
         ("count", (1,), ()), ("count", (4,), ()), ("greater_than", (5, 6), ())],
        "Compare Integer", "yes", [0, 1],
    ),
    "Has the sphere the size of the blue cube?": (
        [*BLUE_CUBE, SCENE, ("filter_shape", (4,), ("sphere",)), ("unique", (5,), ()),
         ("query_size", (3,), ()), ("query_size", (6,), ()), ("equal_size", (7, 8), ())],
        "Compare Attribute", "yes", [1, 2],
    ),
    "How many things are red or cubes?": (
        [*RED, *CUBES, ("union", (1, 3), ()), ("count", (4,), ())], "Count", "3", [0, 1, 2],
    ),
    "What color is the red cube?": (
        [*RED, *CUBES, ("intersect", (1, 3), ()), ("unique", (4,), ()), ("query_color", (5,), ())],
        "Query Attribute", "red", [0],
    ),
    "How many things are of the blue cube's material?": (
        [*BLUE_CUBE, ("same_material", (3,), ()), ("count", (4,), ())], "Count", "1", [0],
    ),
    "Is anything behind the sphere?": (
        [SCENE, ("filter_shape", (0,), ("sphere",)), ("unique", (1,), ()), ("relate", (2,), ("behind",)),
         ("exist", (3,), ())],
        "Exist", "no", [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", PROGRAMS)
def test_programs_by_hand(text):
    rows, kind, answer, asked = PROGRAMS[text]
    assert run(steps(*rows), OBJECTS, RELATIONSHIPS) == (answer, asked)
    assert question_type(rows[-1][0]) == kind


def test_functions_of_the_templates_have_types():
    for function, kind in (
        ("filter_count", "Count"), ("relate_filter_count", "Count"), ("filter_exist", "Exist"),
        ("relate_filter_exist", "Exist"), ("query_shape", "Query Attribute"),
        ("equal_shape", "Compare Attribute"), ("less_than", "Compare Integer"),
    ):  # fmt: skip
        assert question_type(function) == kind and kind in TYPES
    for function in ("filter_color", "scene", "query_price", "equal_", "account"):
        with pytest.raises(AtlasError, match="no question ends in"):
            question_type(function)


def files(folder, change=None):
    """CLEVR's layout with two images and all PROGRAMS about the first, one about the second."""
    scene = {"image_index": 0, "image_filename": "CLEVR_val_000000.png", "split": "val", "objects": OBJECTS}
    scene["relationships"] = RELATIONSHIPS
    scenes = [scene, {**scene, "image_index": 1, "image_filename": "CLEVR_val_000001.png"}]
    rows = []
    for text, (program, _, answer, _) in [*PROGRAMS.items(), next(iter(PROGRAMS.items()))]:
        image = int(len(rows) == len(PROGRAMS))
        rows.append(
            {
                "image_index": image,
                "image_filename": f"CLEVR_val_{image:06d}.png",
                "question_index": len(rows),
                "question": text,
                "answer": answer,
                "question_family_index": 7,
                "program": steps(*program),
            }
        )
    value = copy.deepcopy({"scenes": scenes, "questions": rows})
    if change:
        change(value)
    folder.mkdir(exist_ok=True)
    for name in ("scenes", "questions"):
        (folder / f"{name}.json").write_text(json.dumps({"info": {}, name: value[name]}))
    return {"questions": str(folder / "questions.json"), "scenes": str(folder / "scenes.json")}


def read(folder, change=None, **more):
    part = {**files(folder, change), "split": "val", **more.pop("part", {})}
    return read_clevr({"val": part}, folder, **more)


def test_the_published_layout(tmp_path):
    corpus = read(tmp_path)
    first = corpus.examples[2]
    assert len(corpus.examples) == 12 and list(corpus.scenes) == ["CLEVR_val_000000", "CLEVR_val_000001"]
    assert (first.id, first.answers, first.extra["asked"]) == ("CLEVR_val_000000_q2", ["metal"], [1])
    assert first.extra["type"] == "Query Attribute" and first.extra["family"] == 7
    scene = corpus.scene(first)
    assert scene.path == "images/val/CLEVR_val_000000.png" and (scene.width, scene.height) == (480, 320)
    # 525 pixels of focal length: a radius of 0.7 at 10.5 away is 35 pixels, one of 0.35 at 12.25 is 15.
    assert scene.objects[0].box == pytest.approx((65, 115, 135, 185)) and scene.objects[0].label == "cube"
    assert scene.objects[1].box == pytest.approx((225, 85, 255, 115))
    assert scene.objects[2].box[2] == 480  # cut at the edge
    assert scene.objects[1].attributes == ["small", "red", "metal"]


def test_parts_of_val_and_subsets(tmp_path):
    part = files(tmp_path)
    parts = {
        "val": {**part, "split": "val", "images": [0, 1]},
        "test": {**part, "split": "test", "images": [1, 9]},
    }
    corpus = read_clevr(parts, tmp_path)
    assert len(corpus.split("val")) == 11 and [e.image_id for e in corpus.split("test")] == [
        "CLEVR_val_000001"
    ]
    assert corpus.scenes["CLEVR_val_000001"].path == "images/val/CLEVR_val_000001.png"
    some = read(tmp_path, subset=4)
    assert [e.id[-2:] for e in some.examples] == ["q0", "q3", "q6", "q9"]


def test_output_of_the_public_generator(tmp_path):
    """It writes the function as `type`, words as `side_inputs`, and answers that are no text."""

    def change(value):
        for row in value["questions"]:
            row["answer"] = {"yes": True, "no": False}.get(row["answer"], row["answer"])
            if row["answer"] in ("1", "2", "3"):
                row["answer"] = int(row["answer"])
            for step in row["program"]:
                step["type"] = step.pop("function")
                step["side_inputs"] = step.pop("value_inputs")

    changed, plain = read(tmp_path / "a", change), read(tmp_path / "b")
    assert [e.answers for e in changed.examples] == [e.answers for e in plain.examples]
    assert [e.extra["asked"] for e in changed.examples] == [e.extra["asked"] for e in plain.examples]


def test_types_by_template_where_there_is_no_program(tmp_path):
    (tmp_path / "t").mkdir()
    nodes = lambda name: {"text": ["?"], "nodes": [{"type": "scene"}, {"type": name}]}  # noqa: E731
    (tmp_path / "t/zero_hop.json").write_text(json.dumps([nodes("filter_count"), nodes("query_size")]))
    assert read_templates(tmp_path / "t") == {
        ("zero_hop.json", 0): "Count",
        ("zero_hop.json", 1): "Query Attribute",
    }

    def change(value):
        for row in value["questions"]:
            del row["program"]
            row |= {"template_filename": "zero_hop.json", "question_family_index": 1}

    corpus = read(tmp_path, change, templates=tmp_path / "t")
    assert {e.extra["type"] for e in corpus.examples} == {
        "Query Attribute"
    } and "asked" not in corpus.examples[0].extra
    with pytest.raises(AtlasError, match="program: is missing"):
        read(tmp_path, change)
    with pytest.raises(AtlasError, match="no question templates"):
        read(tmp_path, change, templates=tmp_path / "none")


def wrong(field, value, row=0, where="questions"):
    def change(all_rows):
        all_rows[where][row][field] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wrong("answer", "no"), "question 0: answer: is 'no', but its program gives 'yes'"),
        (wrong("program", steps(*RED)), "does not end in an answer"),
        (wrong("program", steps(SCENE, ("unique", (0,), ()))), "step 1: unique: cannot be executed"),
        (wrong("program", steps(SCENE, ("count", (4,), ()))), "step 1: count: cannot be executed"),
        (wrong("program", steps(SCENE, ("fly", (0,), ()))), "step 1: fly: cannot be executed"),
        (wrong("question_index", None), "question None: question_index: is null"),
        (wrong("objects", [{"shape": "cube"}], where="scenes"), "scene 'CLEVR_val_000000.png': objects"),
        (wrong("image_filename", "", where="scenes"), "questions: 0: image_filename: no scene of"),
        (wrong("question", "?"), "text: has no words"),
    ],
)
def test_errors_name_their_cause(tmp_path, change, message):
    with pytest.raises(AtlasError, match=message.replace("?", r"\?")):
        read(tmp_path, change)


def test_wrong_files_and_settings(tmp_path):
    part = files(tmp_path)
    for parts, more, message in (
        ({"val": {**part, "questions": tmp_path / "no.json"}}, {}, "no.json: no such file"),
        (
            {"val": {**part, "questions": part["scenes"]}},
            {},
            "questions: is missing or empty; give CLEVR's questions",
        ),
        ({"val": {**part, "images": [5, 9]}}, {}, "no question about an image"),
        ({"val": {**part, "split": "dev"}}, {}, "split: 'dev' is not one of"),
        ({"val": {"questions": part["questions"]}}, {}, "val: scenes: is missing"),
        ({"val": part}, {"subset": 0}, "subset: must be at least 1"),
    ):
        with pytest.raises(AtlasError, match=message):
            read_clevr(parts, tmp_path, **more)
    assert issubclass(ConfigError, AtlasError)
