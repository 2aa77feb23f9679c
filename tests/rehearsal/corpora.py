"""Corpora of images and texts: Tell-Me-More, COCO and what is built on it, CUB, Flickr30k, Winoground."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from .drawn import COLOURS, KINDS, SIZE, Thing, captions, draw, paragraph, things
from .regions import write_npz, write_tsv

Images = dict[int, list[Thing]]
TRAIN, VAL = range(1, 41), range(101, 137)  # COCO's numbers of train2014 and val2014
KARPATHY = {"restval": range(101, 107), "val": range(107, 121), "test": range(121, 137)}


def write_tell_me_more(folder: Path) -> None:
    rng = np.random.default_rng(1)
    splits = ["train"] * 24 + ["extra"] * 6 + ["val"] * 12 + ["test"] * 14
    rows, of, shown = [], {}, {}
    for n, split in enumerate(splits):
        image_id = f"ADE_{n:08d}"
        place = f"{'training' if split == 'train' else 'validation'}/b/bedroom/{image_id}.jpg"
        shown[image_id] = things(rng)
        draw(folder / "images" / place, shown[image_id])
        rows.append([str(n), image_id, place, "home", "bedroom", *paragraph(shown[image_id])])
        of[image_id] = split
    header = ["seq_id", "image_id", "image_path", "image_cat", "image_subcat", "d1", "d2", "d3", "d4", "d5"]
    (folder / "sequences.csv").write_text("\n".join("\t".join(r) for r in [header, *rows]) + "\n")
    (folder / "splits.json").write_text(json.dumps(of))
    write_tsv(folder / "features.tsv", shown.items())


def write_stanford_paragraphs(folder: Path) -> None:
    rng = np.random.default_rng(8)
    rows, shown = [], {}
    splits: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for n, split in enumerate(["train"] * 24 + ["val"] * 12 + ["test"] * 4):
        number, place = 2_300_001 + n, f"VG_100K{'_2' * (n % 2)}"
        found = shown[str(number)] = things(rng)
        draw(folder / place / f"{number}.jpg", found)
        url = f"https://cs.stanford.edu/people/rak248/{place}/{number}.jpg"
        rows.append({"url": url, "image_id": number, "paragraph": " ".join(paragraph(found))})
        splits[split].append(number)
    (folder / "paragraphs_v1.json").write_text(json.dumps(rows))
    for split, numbers in splits.items():
        (folder / f"{split}_split.json").write_text(json.dumps(numbers))
    write_tsv(folder / "features.tsv", shown.items())


def write_coco(folder: Path) -> Images:
    """Images, Karpathy's JSON, the annotations of captions and instances, bottom-up regions."""
    rng = np.random.default_rng(2)
    shown = {n: things(rng) for n in [*TRAIN, *VAL]}
    for number, found in shown.items():
        draw(folder / part_of(number) / file_of(number), found)
    _write_karpathy(folder / "dataset_coco.json", shown)
    for part, numbers in (("train2014", TRAIN), ("val2014", VAL)):
        _write_annotations(folder / "annotations", part, {n: shown[n] for n in numbers})
    for part in ("train2014", "val2014"):  # the regions that LXMERT published
        rows = ((Path(file_of(n)).stem, found) for n, found in shown.items() if part_of(n) == part)
        write_tsv(folder / f"{part}_obj36.tsv", rows)
    return shown


def part_of(number: int) -> str:
    return "train2014" if number in TRAIN else "val2014"


def file_of(number: int) -> str:
    return f"COCO_{part_of(number)}_{number:012d}.jpg"


def _write_karpathy(path: Path, shown: Images) -> None:
    images, sentences = [], 0
    for number, found in shown.items():
        split = next((s for s, numbers in KARPATHY.items() if number in numbers), "train")
        row = {"cocoid": number, "filename": file_of(number), "filepath": part_of(number), "split": split}
        images.append({**row, "sentences": _sentences(captions(found), sentences)})
        sentences += 5
    path.write_text(json.dumps({"dataset": "coco", "images": images}))


def _sentences(texts: list[str], first: int) -> list[dict[str, Any]]:
    return [
        {"sentid": first + k, "raw": text, "tokens": re.findall(r"[a-z]+", text.lower())}
        for k, text in enumerate(texts)
    ]


def _write_annotations(folder: Path, part: str, shown: Images) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images = [
        {"id": n, "file_name": file_of(n), "width": SIZE[0], "height": SIZE[1], "license": 1} for n in shown
    ]
    rows = [
        {"id": 10 * n + k, "image_id": n, "caption": text}
        for n, found in shown.items()
        for k, text in enumerate(captions(found))
    ]
    categories = [
        {"id": k, "name": name, "supercategory": kind} for k, (name, kind) in enumerate(KINDS.items(), 1)
    ]
    number = {row["name"]: row["id"] for row in categories}
    boxes = []
    for n, found in shown.items():
        for thing in found:
            x1, y1, x2, y2 = thing.box
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            boxes.append({"id": len(boxes) + 1, "image_id": n, "category_id": number[thing.name], **box})
    (folder / f"captions_{part}.json").write_text(json.dumps({"images": images, "annotations": rows}))
    (folder / f"instances_{part}.json").write_text(
        json.dumps({"images": images, "annotations": boxes, "categories": categories})
    )


def write_coco_images(folder: Path, coco: Path, shown: Images) -> None:
    """AttnGAN's preparation: links to the images, lists of names, one file of captions per image."""
    (folder / "images").mkdir(parents=True)
    (folder / "text").mkdir()
    for number, found in shown.items():
        target = (coco / part_of(number) / file_of(number)).resolve()
        (folder / "images" / file_of(number)).symlink_to(target)
        (folder / "text" / file_of(number)).with_suffix(".txt").write_text("\n".join(captions(found)) + "\n")
    names = {
        part: [Path(file_of(n)).stem for n in shown if part_of(n) == part]
        for part in ("train2014", "val2014")
    }
    write_names(folder, names["train2014"], names["val2014"][:10])


def write_names(folder: Path, train: list[str], test: list[str]) -> None:
    """Lists pickled by Python 2, as AttnGAN's archives have them."""
    for split, names in (("train", train), ("test", test)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        (folder / split / "filenames.pickle").write_bytes(pickle.dumps(names, protocol=0))


def write_cub(folder: Path) -> None:
    """Ten captions of each bird, boxes, and classes that train and test do not share."""
    rng = np.random.default_rng(3)
    images, texts = folder / "CUB_200_2011" / "images", folder / "text"
    names: dict[str, list[str]] = {"train": [], "test": []}
    lines, boxes = [], []
    for n in range(46):
        split = "train" if n < 36 else "test"
        kind = n % 4 if split == "train" else 4 + n % 4
        name = f"{kind + 1:03d}.Bird_{'ABCDEFGH'[kind]}/Bird_{n:04d}_{n}"
        body, head = things(rng, 2, ("bird", "head"))
        draw(images / f"{name}.jpg", [body, head])
        sentences = [
            f"a {body.colour} bird with a {head.colour} {part} and {'long' if k % 2 else 'short'} wings."
            for k, part in enumerate(("head", "crown", "beak", "throat", "tail") * 2)
        ]
        (texts / name).parent.mkdir(parents=True, exist_ok=True)
        (texts / f"{name}.txt").write_text("\n".join(sentences) + "\n")
        names[split].append(name)
        x1, y1, x2, y2 = body.box
        lines.append(f"{n + 1} {name}.jpg")
        boxes.append(f"{n + 1} {x1}.0 {y1}.0 {x2 - x1}.0 {y2 - y1}.0")
    (folder / "CUB_200_2011" / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "CUB_200_2011" / "bounding_boxes.txt").write_text("\n".join(boxes) + "\n")
    write_names(folder, names["train"], names["test"])


def write_flickr30k(folder: Path) -> None:
    rng = np.random.default_rng(4)
    images, shown, sentences = [], {}, 0
    for n, split in enumerate(["train"] * 24 + ["val"] * 12 + ["test"] * 14):
        found = shown[str(1000 + n)] = things(rng)
        draw(folder / "images" / f"{1000 + n}.jpg", found)
        row = {"filename": f"{1000 + n}.jpg", "imgid": n, "split": split}
        images.append({**row, "sentences": _sentences(captions(found), sentences)})
        sentences += 5
    (folder / "dataset_flickr30k.json").write_text(json.dumps({"dataset": "flickr30k", "images": images}))
    write_npz(folder / "features", shown.items())


def write_winoground(folder: Path) -> None:
    rng = np.random.default_rng(5)
    rows = []
    for n in range(10):
        a, b = things(rng, 2)
        for k, pair in enumerate(((a, b), (b, a))):
            swapped = [Thing(t.name, t.colour, place.box) for t, place in zip(pair, (a, b))]
            draw(folder / "images" / f"ex_{n}_img_{k}.png", swapped)
        texts = [f"{x.noun_phrase} is left of {y.noun_phrase}" for x, y in ((a, b), (b, a))]
        row = {"id": n, "image_0": f"ex_{n}_img_0", "image_1": f"ex_{n}_img_1", "num_main_preds": 1}
        row |= {"caption_0": texts[0], "caption_1": texts[1], "tag": "Object", "collapsed_tag": "Object"}
        rows.append(json.dumps(row | {"secondary_tag": ""}))
    (folder / "examples.jsonl").write_text("\n".join(rows) + "\n")


def write_vqav2(folder: Path, shown: Images) -> None:
    """Six files; complementary pairs are the same question about two images with different answers."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, numbers in (("train2014", TRAIN), ("val2014", VAL)):
        questions, notes = [], []
        asked: dict[str, list[tuple[int, str]]] = {}
        for image in numbers:
            for k, (text, answer) in enumerate(_questions(shown[image])):
                number = image * 1000 + k
                about = {"question_id": number, "image_id": image}
                questions.append({**about, "question": text})
                people = [{"answer": a, "answer_id": i + 1} for i, a in enumerate([answer] * 9 + ["maybe"])]
                notes.append({**about, "multiple_choice_answer": answer, "answers": people})
                asked.setdefault(text, []).append((number, answer))
        pairs = [
            [rows[i][0], rows[i + 1][0]]
            for rows in asked.values()
            for i in range(0, len(rows) - 1, 2)
            if rows[i][1] != rows[i + 1][1]
        ]
        start = folder / "v2_"
        Path(f"{start}OpenEnded_mscoco_{part}_questions.json").write_text(
            json.dumps({"questions": questions})
        )
        Path(f"{start}mscoco_{part}_annotations.json").write_text(json.dumps({"annotations": notes}))
        Path(f"{start}mscoco_{part}_complementary_pairs.json").write_text(json.dumps(pairs))


def _questions(shown: list[Thing]) -> list[tuple[str, str]]:
    """One of each group of study 4."""
    a, b, c = shown
    names = {t.name for t in shown}
    colour = list(COLOURS)[len(a.name) % len(COLOURS)]
    return [
        ("What is on the left?", a.name),
        (f"What color is the {b.name}?", b.colour),
        ("What color is the thing on the left?", a.colour),
        (f"Where is the {c.name}?", "right"),
        ("How many things are there?", "3" if len(a.name) % 2 else "2"),
        (f"Which thing is {b.colour}?", b.name),
        ("Why is it there?", "to rest" if "couch" in names or "chair" in names else "no reason"),
        ("Is there an animal?", "yes" if names & {"dog", "cat"} else "no"),
        (f"Are there {colour} things?", "yes" if colour in {t.colour for t in shown} else "no"),
        ("Does it look like a kitchen?", "yes" if names & {"cup", "bowl"} else "no"),
    ]
