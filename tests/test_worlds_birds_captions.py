"""Captions of birds: true of the bird, phrases on the right words, clear errors."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from attention_atlas.data.corpus import Scene, SceneObject, read_corpus, write_examples, write_scenes
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.words import words
from attention_atlas.synthetic.birds.bird import PARTS
from attention_atlas.synthetic.birds.captions import Captions, account, caption
from attention_atlas.synthetic.birds.palette import COLORS, color_of
from attention_atlas.synthetic.birds.phrases import NAMES, PLURAL, Telling, Writer, article


def thing(number, label, *attributes, area=100):
    return SceneObject(number, label, list(attributes), (0.0, 0.0, 9.0, 9.0), area)


BIRD = [
    thing(0, "bird", "small"),
    thing(2, "breast", "white"),
    thing(3, "belly", "white"),
    thing(4, "throat", "yellow"),
    thing(5, "head", "orange"),
    thing(7, "beak", "short", "hooked", "red"),
    thing(8, "wing", "black", "barred"),
    thing(10, "legs", "yellow"),
    thing(11, "eye", "black", area=3),
    thing(12, "branch", "brown"),
    thing(13, "leaves", "green"),
]
OF = {name: part for part, names in NAMES.items() for name in names}


def many(objects=BIRD, runs=40):
    captions = []
    for i in range(runs):
        captions += Captions().of_bird(objects, "hawk", 4096, np.random.default_rng(i))
    return captions


def test_captions_are_true_and_phrases_match_them():
    by_id = {o.id: o for o in BIRD}
    for written in many():
        assert 2 <= len(written.colors) <= 4
        assert written.colors == {
            p: color_of(next(o for o in BIRD if o.label == p).attributes) for p in written.colors
        }
        named = set()
        for phrase in written.phrases:
            text = written.text[phrase.start : phrase.end]
            tokens = text.split()
            objects = [by_id[i] for i in phrase.objects]
            parts = [OF[t] for t in tokens if t in OF]
            assert [o.label for o in objects if o.label in NAMES] == parts, text
            named.update(parts)
            for color in set(tokens) & set(COLORS):
                assert all(color in o.attributes for o in objects), text
            for word in set(tokens) & {"short", "long", "hooked", "small", "barred"}:
                assert any(word in o.attributes for o in objects), text
            assert phrase.kind == ("group" if len(objects) > 1 else "object")
        assert named == set(written.colors)
        mentioned = {OF[w.text] for w in words(written.text) if w.text in OF}
        assert mentioned == named  # no part is named outside a phrase
        assert "eye" not in named  # 3 of 4,096 pixels


def test_captions_differ_and_are_short():
    for i in range(20):
        captions = Captions(per_scene=5, max_words=14).of_bird(BIRD, "hawk", 4096, np.random.default_rng(i))
        assert len({t.text for t in captions}) == len(captions) == 5
        assert all(len(words(t.text)) <= 14 for t in captions)


def test_all_ways_and_parts_come_up():
    captions = many(runs=120)
    starts = Counter(t.text.split()[0] for t in captions)
    assert {"this", "the", "a"} <= set(starts)
    assert {p for t in captions for p in t.colors} == {o.label for o in BIRD[1:8]}
    assert any("this is a" in t.text for t in captions) and any(", and its" in t.text for t in captions)
    relations = [r for t in captions for r in t.relations]
    assert relations and all(r.target_objects == [0] and r.landmark_objects == [12] for r in relations)
    perched = next(t for t in captions if t.relations)
    spans = perched.relations[0]
    assert perched.text[slice(*spans.relation)] == "on"
    assert perched.text[slice(*spans.landmark)].endswith("branch")


def test_two_parts_of_one_color_are_one_phrase():
    writer = Writer(BIRD, "hawk", np.random.default_rng(0))
    out = Telling()
    writer.part_name = lambda part: NAMES[part][0]
    writer.list_of(out, [BIRD[1], BIRD[2], BIRD[3]])
    assert out.text == "a white breast and belly and a yellow throat"
    assert [(p.objects, p.kind) for p in out.phrases] == [([2, 3], "group"), ([4], "object")]
    assert out.colors == {"breast": "white", "belly": "white", "throat": "yellow"}


def test_the_account_names_everything():
    written = account(BIRD, "hawk")
    assert written.text == (
        "the small hawk is perched on a branch and has a white breast, a white belly, a yellow throat,"
        " an orange head, a short hooked red beak, black barred wings, yellow legs and black eyes"
    )
    assert {i for p in written.phrases for i in p.objects} >= {o.id for o in BIRD if o.label in PARTS} | {0}


def test_a_flying_bird_has_no_perch():
    objects = [thing(0, "bird", "flying"), *BIRD[1:7], thing(13, "sky", "blue")]
    texts = [t.text for t in many(objects, 60)]
    assert any("flying in the sky" in t for t in texts)
    assert not any("perched" in t or "flying bird" in t for t in texts)


def test_articles():
    assert article("orange beak") == "an" and article("red beak") == "a"
    assert all(f" {w}" not in t.text for t in many(runs=10) for w in ("a orange", "an red", "a wings"))
    assert set(PLURAL) == {"wing", "legs", "eye"}


def write(root, objects):
    root.mkdir(exist_ok=True)
    scenes = [Scene(f"test_0000{i}", f"images/{i}.png", 64, 64, "test", objects, "hawk") for i in range(3)]
    write_scenes(root / "scenes.jsonl", scenes)
    write_examples(root / "descriptions.jsonl", [])


def test_the_annotator_writes_a_layer_that_reads_back(tmp_path):
    from attention_atlas.data.corpus import Example

    write(tmp_path, BIRD)
    write_examples(tmp_path / "descriptions.jsonl", [Example("x", "test_00000", "a bird")])
    for seed, file in ((0, "a.jsonl"), (0, "b.jsonl"), (1, "c.jsonl")):
        Captions()(tmp_path, tmp_path / file, seed)
    same, other = (tmp_path / "b.jsonl").read_bytes(), (tmp_path / "c.jsonl").read_bytes()
    assert (tmp_path / "a.jsonl").read_bytes() == same != other
    corpus = read_corpus(tmp_path, str(tmp_path / "a.jsonl"))
    assert [e.id for e in corpus.examples[:6]] == [*(f"test_00000.c{n}" for n in range(5)), "test_00001.c0"]
    assert corpus.examples[0].extra["colors"]
    row = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert set(row["extra"]) == {"colors"}


def test_faults_are_named(tmp_path):
    from attention_atlas.data.corpus import Example

    with pytest.raises(ConfigError, match="per_scene must be at least 1"):
        Captions(per_scene=0)
    write(tmp_path, [thing(4, "table", "red")])
    write_examples(tmp_path / "descriptions.jsonl", [Example("x", "test_00000", "a table")])
    with pytest.raises(AtlasError, match=r"scenes.jsonl: test_00000: objects: no bird"):
        Captions()(tmp_path, tmp_path / "a.jsonl", 0)
    bare = Writer(BIRD[:2], "hawk", np.random.default_rng(0))
    with pytest.raises(AtlasError, match="a hawk is too little visible"):
        caption(bare, 8, 20)


def test_the_configs_compose(root):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    world = OmegaConf.load(root / "conf/data/birds.yaml")
    assert instantiate(world.world).describe_self() == {"world": "birds", "image_size": 64, "least_parts": 8}
    layer = OmegaConf.load(root / "conf/data/birds_captions.yaml")
    assert instantiate(layer.annotator).per_scene == 5 and layer.images == world.name
    assert layer.root == world.root
