"""Every kind of file that is read: how a good one is made, and how it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from PIL import Image

from attention_atlas.data.coco_captions import read_coco_captions
from attention_atlas.data.coco_instances import read_instances
from attention_atlas.data.corpus import Corpus, Example, Scene, read_corpus
from attention_atlas.data.cub_boxes import read_boxes as read_cub_boxes
from attention_atlas.data.folder import read_folder
from attention_atlas.data.generated import read_generated
from attention_atlas.data.images import read_rgb
from attention_atlas.data.name_list import read_names
from attention_atlas.data.ocr_file import read_ocr
from attention_atlas.data.phrase_boxes import read_boxes
from attention_atlas.data.stanford_paragraphs import read_stanford_paragraphs
from attention_atlas.data.tell_me_more import COLUMNS as TELL_ME_MORE
from attention_atlas.data.tell_me_more import read_tell_me_more
from attention_atlas.data.vqav2 import read_vqav2
from attention_atlas.data.winoground import read_winoground
from attention_atlas.files import read_json
from attention_atlas.ground.coco import read_coco
from attention_atlas.language.links import Links, PhraseLink, read_links, write_links
from attention_atlas.language.parse import read_parses
from attention_atlas.language.vocabulary import Vocabulary
from attention_atlas.language.word_vectors import read_vectors
from attention_atlas.linking.gold_file import read_gold_csv
from attention_atlas.measures.table import make_table, read_table, write_table
from attention_atlas.models.yahoo_checkpoint import read_weights, read_words
from attention_atlas.recording import AttentionStore, AttentionWriter, Axis, StatisticsStore, StatisticsWriter
from attention_atlas.regions.archives import BottomUpH5, BottomUpNpz
from attention_atlas.regions.bottom_up_tsv import BottomUpTSV
from attention_atlas.regions.features_file import FeaturesFile, FeaturesWriter
from attention_atlas.reporting.build import about
from attention_atlas.studies.modality.examples import read_examples, write_examples
from attention_atlas.studies.vilt_layers.answers import read_answers, read_given
from attention_atlas.studies.vilt_layers.head_file import NAMES, read_heads, save_heads


class Kind(NamedTuple):
    """file: its name. write(path): a good file. read(path): its reader. lines: it may end after any line."""

    file: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    lines: bool = False


def _json(value: Any) -> Callable[[Path], Any]:
    return lambda path: path.write_text(json.dumps(value))


def _rows(*rows: Any) -> Callable[[Path], Any]:
    return lambda path: path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _text(text: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(text)


def _image(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3)).astype(np.uint8)).save(path)


def beside(path: Path, name: str, write: Callable[[Path], Any]) -> Path:
    if not (path.parent / name).exists():
        write(path.parent / name)
    return path.parent / name


SCENE = {"image_id": "a", "path": "a.png", "width": 12, "height": 9, "split": "test"}
EXAMPLE = {"id": "e", "image_id": "a", "text": "A lamp."}
SENTENCE = {"sentid": 1, "raw": "A lamp.", "tokens": ["a", "lamp"]}
KARPATHY = {"split": "test", "filename": "a.png", "filepath": "val", "cocoid": 1, "sentences": [SENTENCE]}
OCR = {"image_id": "a", "size": [8, 6], "tokens": [{"text": "EXIT", "box": [0, 0, 4, 4], "confidence": 1.0}]}
INSTANCES = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "categories": [{"id": 1, "name": "lamp", "supercategory": "furniture"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3], "area": 9, "iscrowd": 0}
    ],
}
VQA = {"questions": [{"question_id": 1, "image_id": 7, "question": "How many?"}]}
NOTES = {"question_id": 1, "image_id": 7, "answers": [{"answer": "0"}] * 10, "multiple_choice_answer": "0"}
WINOGROUND = {"id": 0, "image_0": "a", "image_1": "b", "caption_0": "One.", "caption_1": "Two."}
ROOM = "\t".join(["0", "1", "a.png", "room", "home", *["A lamp."] * 5])
WORLD = Corpus(Path("."), {"a": Scene("a", "a.png", 40, 40, "test")}, [Example("e", "a", "A lamp.")])
ARRAYS = {"features": np.ones((2, 3), "<f4"), "boxes": np.array([[1, 1, 9, 9], [2, 2, 20, 20]], "<f4")}


def corpus(path: Path) -> Corpus:
    if path.name == "descriptions.jsonl":
        beside(path, "scenes.jsonl", _rows(SCENE))
    else:
        beside(path, "descriptions.jsonl", _rows(EXAMPLE))
    return read_corpus(path.parent)


def vqa(path: Path) -> Corpus:
    notes = beside(path, "notes.json", _json({"annotations": [NOTES]}))
    part = {"questions": path, "annotations": notes, "split": "test"}
    return read_vqav2({"val2014": part}, path.parent, require_images=False)


def attention(path: Path) -> None:
    weights = np.full((2, 2, 3, 40), 1 / 40, np.float32)
    axes = {"target": Axis(["a", "lamp", "<eos>"]), "region": Axis(["x"] * 40, ["image"] * 40)}
    with AttentionWriter(path, model="m", config_hash="h", kinds={"cross": ("target", "region")}) as writer:
        writer.write("e", {"cross": weights}, axes)


def statistics(path: Path) -> None:
    axes = {"target": Axis(["a", "lamp"]), "region": Axis(["x", "y"], ["image"] * 2)}
    kinds, groups = {"cross": ("target", "region")}, {"region": ["image"]}
    with StatisticsWriter(path, model="m", config_hash="h", kinds=kinds, groups=groups) as writer:
        writer.write("e", {"cross": {"mass": np.ones((2, 2, 2, 1), np.float32)}}, axes)


def read_statistics(path: Path) -> None:
    with StatisticsStore(path) as store:
        for name in store.names("e", "cross"):
            store.read("e", "cross", name)
        store.axis("e", "target")


def read_attention(path: Path) -> None:
    with AttentionStore(path) as store:
        store.validate()


def features(path: Path) -> None:
    with FeaturesWriter(path, dim=3, regions=2, labels=[], source="test") as writer:
        writer.add("a", features=ARRAYS["features"], boxes=ARRAYS["boxes"], size=(40, 40))


def bottom_up_h5(path: Path) -> None:
    with h5py.File(path, "w") as h5:
        for name, array in ARRAYS.items():
            h5[f"a/{name}"] = array


def _extract(source: type, path_: Path, **settings: Any) -> None:
    made = source(dim=3, regions=2, objects_vocab=None, attributes_vocab=None, **settings)
    made.extract(WORLD, path_.parent / "made.h5", path_.parent / "work", "cpu")
    (path_.parent / "made.h5").unlink()


def bottom_up_tsv(path: Path) -> None:
    from base64 import b64encode

    cells = ["a", "40", "40", "2", *(b64encode(ARRAYS[n].tobytes()).decode() for n in ("boxes", "features"))]
    path.write_text("\t".join(cells) + "\n")


def state(path: Path) -> None:
    import torch

    torch.save({"weight": torch.ones(2, 2)}, path)


def safetensors(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2, 2)}, path)


def parse(path: Path) -> None:
    from attention_atlas.language.parse import write_parses
    from attention_atlas.language.parsed import NounPhrase, Parse, Token

    token = Token("lamp", 0, 4, "NOUN", "NN", "ROOT", 0, 0)
    write_parses(path, [Parse("e", [token], [NounPhrase(0, 1, 0, 0, False)], [])])


KINDS: dict[str, Kind] = {
    "image": Kind("a.png", _image, read_rgb),
    "texts of a folder": Kind(
        "texts.csv",
        _text("image,text\na.png,A lamp.\n"),
        lambda p: (beside(p, "a.png", _image), read_folder(p.parent, p)),
        lines=True,
    ),
    "boxes": Kind(
        "boxes.csv",
        _text("image,phrase,x,y,w,h\na.png,lamp,1,1,5,5\n"),
        lambda p: (beside(p, "a.png", _image), read_boxes(p, p.parent)),
        lines=True,
    ),
    "gold links": Kind(
        "gold.csv", _text("example_id,start,end,regions\ne,0,4,0\n"), read_gold_csv, lines=True
    ),
    "metric table": Kind(
        "metrics.csv",
        lambda p: write_table(p, make_table([{"model": "m", "measure": "x", "value": 0.5}])),
        read_table,
        lines=True,
    ),
    "scenes": Kind("scenes.jsonl", _rows(SCENE), corpus),
    "descriptions": Kind("descriptions.jsonl", _rows(EXAMPLE), corpus),
    "generated texts": Kind("made.jsonl", _rows({"image_id": "a", "text": "A lamp."}), read_generated),
    "read words": Kind("ocr.jsonl", _rows(OCR), read_ocr),
    "given answers": Kind("given.jsonl", _rows({"id": "1", "answer": "yes"}), read_given),
    "winoground": Kind(
        "w.jsonl", _rows(WINOGROUND), lambda p: read_winoground(p, p.parent, require_images=False)
    ),
    "links": Kind(
        "links.jsonl",
        lambda p: write_links(p, [Links("e", "m", [PhraseLink(0, 1, "lamp", [0], 0.5)])]),
        read_links,
    ),
    "parses": Kind("parse.jsonl", parse, read_parses),
    "karpathy": Kind(
        "k.json",
        _json({"images": [KARPATHY]}),
        lambda p: read_coco_captions(p, p.parent, require_images=False),
    ),
    "questions": Kind("q.json", _json(VQA), vqa),
    "instances": Kind("instances.json", _json(INSTANCES), lambda p: read_instances([p])),
    "coco boxes": Kind("instances.json", _json(INSTANCES), lambda p: read_coco(p, p.parent)),
    "paragraphs": Kind(
        "paragraphs.json",
        _json([{"image_id": 12, "url": "http://x/VG_100K/12.jpg", "paragraph": "A lamp."}]),
        lambda p: read_stanford_paragraphs(
            p, {"test": beside(p, "test.json", _json([12]))}, p.parent, require_images=False
        ),
    ),
    "vocabulary": Kind("vocab.json", lambda p: Vocabulary(["lamp"]).save(p), Vocabulary.load),
    "answer list": Kind(
        "answers.json", _json({"schema": "atlas.vqa/1", "answers": ["yes"]}), lambda p: read_answers(p.parent)
    ),
    "words of a checkpoint": Kind("words.json", _json({"ix_to_word": {"1": "lamp"}}), read_words),
    "shown": Kind("shown.json", _json({"schema": "x"}), lambda p: read_json(p, schema="x")),
    "examples of a study": Kind(
        "examples.json",
        lambda p: write_examples(p, {"schema": "atlas.modality_examples/2", "captions": []}),
        read_examples,
    ),
    "summary": Kind("metrics.json", _json({"about": {"n": 1}, "metrics": {}}), about),
    "tell me more": Kind(
        "sequences.csv",
        _text("\t".join(TELL_ME_MORE) + "\n" + ROOM + "\n"),
        lambda p: read_tell_me_more(
            p, beside(p, "splits.json", _json({"1": "test"})), p.parent, require_images=False
        ),
        lines=True,
    ),
    "bottom-up tsv": Kind("f.tsv", bottom_up_tsv, lambda p: _extract(BottomUpTSV, p, paths=[str(p)])),
    "bottom-up h5": Kind("f.h5", bottom_up_h5, lambda p: _extract(BottomUpH5, p, path=str(p))),
    "bottom-up npz": Kind(
        "a.npz",
        lambda p: np.savez(p, feat=ARRAYS["features"], bbox=ARRAYS["boxes"]),
        lambda p: _extract(BottomUpNpz, p, folder=str(p.parent)),
    ),
    "attention": Kind("attention.h5", attention, read_attention),
    "statistics": Kind("statistics.h5", statistics, read_statistics),
    "features": Kind("features.h5", features, lambda p: FeaturesFile(p).close()),
    "heads": Kind("heads.npz", lambda p: save_heads(p, {n: np.arange(3) for n in NAMES}), read_heads),
    "names": Kind("names.txt", _text("b/a\n"), read_names, lines=True),
    "cub boxes": Kind(
        "bounding_boxes.txt",
        _text("1 60.0 27.0 325.0 304.0\n"),
        lambda p: (beside(p, "images.txt", _text("1 a.jpg\n")), read_cub_boxes(p.parent)),
        lines=True,
    ),
    "vectors": Kind(
        "v.vec", _text("lamp 1 2 3\ncat 1 2 3\n"), lambda p: read_vectors(p, ["lamp", "cat"]), lines=True
    ),
    "weights": Kind("model.pth", state, read_weights),
    "safetensors": Kind("model.safetensors", safetensors, read_weights),
}
