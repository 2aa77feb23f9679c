"""Captions as data: the COCO reader, captions of rooms, captions that a model wrote."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from attention_atlas.data.coco_captions import read_coco_captions
from attention_atlas.data.corpus import (
    Example,
    Phrase,
    Scene,
    SceneObject,
    read_corpus,
    write_examples,
    write_scenes,
)
from attention_atlas.data.generated import read_generated_corpus
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import write_jsonl
from attention_atlas.language.words import words
from attention_atlas.synthetic.rooms.caption_writer import usual_verb
from attention_atlas.synthetic.rooms.captions import FULL_ROOM, LONG, Captions
from attention_atlas.synthetic.rooms.paragraphs import Paragraphs
from attention_atlas.synthetic.rooms.plan import Camera, Placed, Plan
from attention_atlas.synthetic.rooms.sample import sample_room
from attention_atlas.synthetic.rooms.text.facts import find_facts
from attention_atlas.synthetic.rooms.text.things import look_at


def coco(tmp_path, **changes):
    rows = []
    for i, split in enumerate(["train", "restval", "val", "test", "test"]):
        rows.append(
            {
                "cocoid": 100 + i,
                "filepath": "val2014",
                "filename": f"pic{i}.png",
                "split": split,
                "sentences": [
                    {
                        "sentid": 10 * i + n,
                        "raw": f"A dog, number {n}.",
                        "tokens": ["a", "dog", "number", str(n)],
                    }
                    for n in range(2)
                ],
            }
        )
    rows[0].update(changes)
    (tmp_path / "val2014").mkdir(exist_ok=True)
    for i in range(5):
        Image.new("RGB", (8 + i, 6)).save(tmp_path / "val2014" / f"pic{i}.png")
    (tmp_path / "k.json").write_text(json.dumps({"images": rows, "dataset": "coco"}))
    return tmp_path / "k.json", tmp_path


def test_coco_captions(tmp_path):
    corpus = read_coco_captions(*coco(tmp_path))
    assert [s.split for s in corpus.scenes.values()] == ["train", "extra", "val", "test", "test"]
    assert [e.id for e in corpus.split("test")] == ["coco30", "coco31", "coco40", "coco41"]
    assert len(corpus.split("train+extra")) == 4
    assert corpus.examples[0].text == "a dog number 0" and corpus.scenes["103"].width == 11
    assert corpus.image_path("104").exists()
    raw = read_coco_captions(*coco(tmp_path), text="raw", require_images=False, keep_splits=["test"], limit=1)
    assert [e.text for e in raw.examples] == ["A dog, number 0.", "A dog, number 1."]
    assert list(raw.scenes) == ["103"] and raw.scenes["103"].width == 0


def test_coco_captions_with_a_limit_for_each_split(tmp_path):
    given = {"require_images": False, "keep_splits": ["train", "val", "test"]}
    corpus = read_coco_captions(*coco(tmp_path), limit={"train": 0, "test": 1}, **given)
    assert [s.split for s in corpus.scenes.values()] == ["val", "test"]
    with pytest.raises(AtlasError, match=r"read_karpathy: limit: .*'tset'"):
        read_coco_captions(*coco(tmp_path), limit={"tset": 1}, **given)


def instances(folder, boxes):
    path = folder / "instances.json"
    categories = [
        {"id": 3, "name": "dog", "supercategory": "animal"},
        {"id": 9, "name": "cup", "supercategory": "kitchen"},
    ]
    path.write_text(json.dumps({"categories": categories, "annotations": boxes}))
    return path


def test_coco_objects_are_named_by_super_category(tmp_path):
    box = {"image_id": 103, "category_id": 3, "bbox": [1, 2, 3.5, 2], "area": 6.6}
    path = instances(tmp_path, [box, box | {"image_id": 999}, box | {"category_id": 9}])
    corpus = read_coco_captions(*coco(tmp_path), instances=[path])
    found = corpus.scenes["103"].objects
    assert [(o.id, o.label, o.attributes) for o in found] == [(0, "animal", ["dog"]), (1, "kitchen", ["cup"])]
    assert found[0].box == (1, 2, 4.5, 4) and found[0].area == 7
    assert not corpus.scenes["104"].objects
    for wrong, message in (
        ({"category_id": 5}, "5 is missing or wrong"),
        ({"bbox": [1, 2]}, "not a file of instances"),
    ):
        with pytest.raises(AtlasError, match=message):
            read_coco_captions(*coco(tmp_path), instances=[instances(tmp_path, [box | wrong])])
    with pytest.raises(AtlasError, match="no such file"):
        read_coco_captions(*coco(tmp_path), instances=[tmp_path / "none.json"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "dev"}, "split: 'dev'"),
        ({"cocoid": 101}, "'101' occurs twice"),
        ({"sentences": [{"sentid": 1, "tokens": ["!"]}]}, "has no words"),
        ({"sentences": [{"tokens": ["a"]}]}, "sentid: field is missing"),
        ({"filename": "none.png"}, "no such image"),
    ],
)
def test_coco_faults(tmp_path, change, message):
    with pytest.raises(AtlasError, match=message):
        read_coco_captions(*coco(tmp_path, **change))


def test_coco_files_that_are_not_the_file(tmp_path):
    with pytest.raises(AtlasError, match="paper-check"):
        read_coco_captions(tmp_path / "none.json", tmp_path)
    (tmp_path / "k.json").write_text("[1]")
    with pytest.raises(AtlasError, match="images: is missing or empty"):
        read_coco_captions(tmp_path / "k.json", tmp_path)
    (tmp_path / "k.json").write_text("{")
    with pytest.raises(AtlasError, match="not JSON"):
        read_coco_captions(tmp_path / "k.json", tmp_path)
    with pytest.raises(AtlasError, match="text: 'words'"):
        read_coco_captions(*coco(tmp_path), text="words")


def room():
    """A bedroom: a blue lamp on a small table that stands next to a bed; a sign on the wall; three chairs
    far away."""
    things = [
        Placed(0, "floor", (0, 2, 0), (4, 4, 0.02)),
        Placed(1, "wall", (0, 4, 1.3), (4, 0.02, 2.6), wall="back"),
        Placed(
            2,
            "table",
            (-0.5, 3.0, 0.35),
            (0.7, 0.7, 0.7),
            color="brown",
            size_word="small",
            material="wooden",
        ),
        Placed(3, "lamp", (-0.5, 3.0, 0.95), (0.3, 0.3, 0.5), color="blue", support="on", parent=2),
        Placed(4, "bed", (0.85, 3.0, 0.3), (1.6, 1.9, 0.6), color="white"),
        Placed(
            5,
            "sign",
            (-0.5, 3.95, 1.8),
            (0.9, 0.04, 0.5),
            color="red",
            support="wall",
            wall="back",
            text="HOME",
        ),
    ]
    things += [
        Placed(6 + i, "chair", (-1.6, 0.6 + 0.7 * i, 0.45), (0.4, 0.4, 0.9), color="red") for i in range(3)
    ]
    plan = Plan("bedroom", (4, 4, 2.6), Camera((0, -1, 1.5), (0, 3, 1), 60), things)
    seen = [
        SceneObject(
            p.id,
            p.label,
            p.attributes,
            (0, 0, 144, 144) if p.label == "wall" else (8 * i, 20, 8 * i + 30, 90),
            700,
        )
        for i, p in enumerate(things)
    ]
    return plan, seen


def test_captions_are_short_true_and_know_their_objects():
    plan, seen = room()
    view = look_at(plan, seen)
    facts = {(f.targets, f.landmarks) for f in find_facts(view)}
    label = {p.id: p.label for p in plan.objects}
    texts = set()
    for seed in range(40):
        captions = Captions().of_room(plan, seen, np.random.default_rng(seed))
        assert len(captions) == 5 == len({t.text for t in captions})
        for caption in captions:
            texts.add(caption.text)
            assert len(words(caption.text)) <= 16 and caption.text == caption.text.lower()
            assert not caption.text.endswith((".", " ")) and "  " not in caption.text
            for phrase in caption.phrases:
                text = caption.text[phrase.start : phrase.end]
                if phrase.kind == "group":
                    assert len(phrase.objects) == 3 and text.startswith("three ") and text.endswith("chairs")
                for i in phrase.objects:
                    named = view.by_id[i].names if label[i] not in ("wall", "floor") else (label[i],)
                    assert any(n in text for n in named) or "chairs" in text
            for relation in caption.relations:
                assert (tuple(relation.target_objects), tuple(relation.landmark_objects)) in facts
                assert caption.text[slice(*relation.relation)]
    assert any("lamp" in t and " on " in t and "table" in t for t in texts)
    assert any("sign that says home" in t or "sign reading home" in t for t in texts)
    assert any("three" in t and "chairs" in t for t in texts)
    assert not any("green" in t for t in texts)


def test_captions_grow_with_the_room_up_to_the_longest():
    """Positions up to 16 need captions of 16 words, and images from which a model can tell how long its
    caption should be."""
    full, other = Counter(), Counter()
    for seed in range(120):
        plan = sample_room(np.random.default_rng(seed)).plan
        seen = [
            SceneObject(p.id, p.label, p.attributes, (10 * i, 20, 10 * i + 30, 90), 700)
            for i, p in enumerate(plan.objects)
        ]
        view = look_at(plan, seen)
        is_full = len({t.label for t in view.things}) >= FULL_ROOM
        captions = Captions().of_room(plan, seen, np.random.default_rng(seed))
        (full if is_full else other).update(len(words(t.text)) for t in captions)
        short = Captions(max_words=9).of_room(plan, seen, np.random.default_rng(seed))
        assert max(len(words(t.text)) for t in short) <= 9
    assert max(full) == max(other) == 16
    assert sum(full.values()) > 50 < sum(other.values())
    # Where no wording of that length turns up the longest is taken.
    assert full[LONG] / full.total() > 0.7 and (full[LONG] + full[LONG - 1]) / full.total() > 0.95
    # Other rooms are captioned as before, briefly.
    assert min(other) <= 6 and sum(n * k for k, n in other.items()) / other.total() < 12


DOING = {
    *("standing", "sitting", "lying", "hanging", "placed", "resting", "mounted", "filled"),
    *("holding", "displaying", "containing", "featuring"),
}
NUMBER = {"two", "three", "four", "five", "six"}


def test_captions_say_what_things_do_and_how_many_there_are():
    """A model that writes the most likely words writes verbs and numbers only if most captions have them."""
    texts = []
    for seed in range(60):
        plan = sample_room(np.random.default_rng(seed)).plan
        seen = [
            SceneObject(p.id, p.label, p.attributes, (10 * i, 20, 10 * i + 30, 90), 700)
            for i, p in enumerate(plan.objects)
        ]
        texts += [t.text for t in Captions().of_room(plan, seen, np.random.default_rng(seed))]
    found = [{word.text for word in words(text)} for text in texts]
    assert sum(bool(f & DOING) for f in found) > 0.7 * len(texts)
    assert sum(bool(f & NUMBER) for f in found) > 0.2 * len(texts)


def test_the_usual_verb_is_what_a_things_place_and_shape_show():
    plan, seen = room()
    usual = {t.label: usual_verb(t) for t in look_at(plan, seen).things}
    assert usual == {
        "table": "sitting",
        "lamp": "standing",
        "bed": "sitting",
        "sign": "hanging",
        "chair": "standing",
    }


def test_captions_are_those_of_the_seed_and_fit_their_corpus(tmp_path):
    from attention_atlas.synthetic.rooms.plan_file import plan_row

    plan, seen = room()
    root = tmp_path / "rooms"
    scenes = [Scene(f"i{n}", f"images/i{n}.png", 144, 144, "train", seen, "bedroom") for n in range(3)]
    write_scenes(root / "scenes.jsonl", scenes)
    write_examples(root / "descriptions.jsonl", [Example(f"i{n}.d", f"i{n}", "a room") for n in range(3)])
    write_jsonl(root / "plans.jsonl", [plan_row(s.image_id, plan) for s in scenes])
    Captions(per_scene=3)(root, tmp_path / "a.jsonl", seed=1)
    Captions(per_scene=3)(root, tmp_path / "b.jsonl", seed=1)
    Captions(per_scene=3)(root, tmp_path / "c.jsonl", seed=2)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert (tmp_path / "a.jsonl").read_bytes() != (tmp_path / "c.jsonl").read_bytes()
    corpus = read_corpus(root, str(tmp_path / "a.jsonl"))
    assert len(corpus.examples) == 9 and len({e.text for e in corpus.examples if e.image_id == "i1"}) == 3
    (root / "plans.jsonl").write_text("")
    with pytest.raises(AtlasError, match=r"plans.jsonl: no plan of image 'i0'"):
        Captions()(root, tmp_path / "d.jsonl", seed=1)
    with pytest.raises(ConfigError, match="max_words"):
        Captions(max_words=3)


def test_only_training_rooms_get_more_paragraphs(tmp_path):
    from attention_atlas.synthetic.rooms.plan_file import plan_row

    plan, seen = room()
    root = tmp_path / "rooms"
    splits = ("train", "val", "train", "test")
    scenes = [Scene(s, f"{s}.png", 144, 144, split, seen, "bedroom") for s, split in zip("abcd", splits)]
    write_scenes(root / "scenes.jsonl", scenes)
    write_examples(root / "descriptions.jsonl", [Example(s, s, "a room", [Phrase(0, 6, [])]) for s in "abcd"])
    write_jsonl(root / "plans.jsonl", [plan_row(s.image_id, plan) for s in scenes])
    Paragraphs(per_scene=4)(root, tmp_path / "p.jsonl", seed=0)
    found = read_corpus(root, str(tmp_path / "p.jsonl")).examples
    assert [e.image_id for e in found] == [*"aaaabccccd"]
    own = (root / "descriptions.jsonl").read_text().splitlines()
    lines = (tmp_path / "p.jsonl").read_text().splitlines()
    assert [lines[i] for i in (0, 4, 5, 9)] == own
    # The same plan, but each text by another describer.
    assert len({e.text for e in found}) == 7
    Paragraphs(per_scene=1)(root, tmp_path / "q.jsonl", seed=0)
    assert (tmp_path / "q.jsonl").read_bytes() == (root / "descriptions.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="per_scene"):
        Paragraphs(per_scene=0)


def test_generated_captions_are_a_corpus(tmp_path):
    scenes = [Scene(f"i{n}", f"i{n}.png", 4, 4, "test") for n in range(3)]
    write_scenes(tmp_path / "scenes.jsonl", scenes)
    write_examples(tmp_path / "captions.jsonl", [Example("x", "i0", "a lamp")])
    rows = [
        {"image_id": "i0", "text": "a red lamp"},
        {"image_id": "i1", "text": ""},
        {"image_id": "i2", "text": "a bed"},
    ]
    write_jsonl(tmp_path / "g.jsonl", rows)
    corpus = read_generated_corpus(tmp_path, "captions", tmp_path / "g.jsonl", "g")
    assert [(e.id, e.text) for e in corpus.split("test")] == [("i0", "a red lamp"), ("i2", "a bed")]
    write_jsonl(tmp_path / "g.jsonl", [{"image_id": "i9", "text": "a lamp"}])
    with pytest.raises(AtlasError, match="no scene 'i9'"):
        read_generated_corpus(tmp_path, "captions", tmp_path / "g.jsonl")
    write_jsonl(tmp_path / "g.jsonl", [{"image_id": "i1", "text": ""}])
    with pytest.raises(AtlasError, match="no caption has a word"):
        read_generated_corpus(tmp_path, "captions", tmp_path / "g.jsonl")
