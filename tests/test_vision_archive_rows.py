"""Archives against their images: sizes, ids, damaged rows, and examples that are left without regions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hydra.utils import instantiate
from vision_archives import (
    FULL,
    WITH_CLASSES,
    D,
    archive,
    check,
    convert,
    detected,
    write_tsv,
    write_vocabularies,
)
from vision_world import draw_world

from attention_atlas.data.corpus import Corpus, Example, Scene
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.regions.archives import BottomUpH5, BottomUpNpz
from attention_atlas.regions.bottom_up_tsv import BottomUpTSV
from attention_atlas.regions.features_file import FeaturesFile, with_regions
from attention_atlas.workflow.compose import compose

PLAIN = ["image_id", "image_w", "image_h", "num_boxes", "boxes", "features"]
LXMERT = ["img_id", "img_h", "img_w", *WITH_CLASSES[3:]]


def wide(*image_ids: str, width: int = 100, height: int = 80) -> Corpus:
    """Images of COCO's names, wider than high."""
    scenes = {
        i: Scene(i, f"val2014/COCO_val2014_{int(i.rpartition('_')[2]):012d}.jpg", width, height, "val")
        for i in image_ids
    }
    return Corpus(Path("coco"), scenes, [Example(f"e{i}", i, "A lamp.") for i in image_ids], "coco")


def rows(corpus: Corpus, columns: list[str], path: Path, key: str = "{stem}", **cells: Any) -> Path:
    """A TSV about `corpus`, as the columns say."""
    images = {}
    for number, (image_id, scene) in enumerate(corpus.scenes.items()):
        name = key.format(image_id=image_id, stem=Path(scene.path).stem)
        size = {"image_w": scene.width, "image_h": scene.height}
        images[name] = {**detected(number, 3), **size, **cells}
    return write_tsv(path, images, [{"img_id": "image_id", "img_w": "image_w", "img_h": "image_h"}.get(c, c)
                                    for c in columns])  # fmt: skip


def test_the_config_of_lxmert_reads_its_ids_and_its_order(tmp_path: Path, root: Path) -> None:
    corpus = wide("9", "123456")
    rows(corpus, LXMERT, tmp_path / "val2014_obj36.tsv")
    (tmp_path / "train2014_obj36.tsv").write_text("")
    vocab = write_vocabularies(tmp_path)
    overrides = ["features=bottom_up_lxmert", f"data.root={tmp_path}"]
    overrides += [f"features.{k}={v}" for k, v in vocab.items()]
    config = compose(root, "features", overrides)
    file = convert(instantiate(config.features), corpus, tmp_path)
    assert file.image_ids == ["9", "123456"] and file.read("9").size == (100, 80)
    assert np.allclose(file.read("123456").boxes, detected(1, 3)["boxes"], atol=1e-4)
    assert not file.skipped


def test_the_paper_profile_reads_coco_with_that_config(root: Path) -> None:
    assert "region_features: bottom_up_lxmert" in (root / "conf/data/coco_captions.yaml").read_text()
    needed = (root / "conf/paper_files.yaml").read_text()
    for name in ("train2014", "val2014"):
        assert f"path: data/raw/coco/{name}_obj36.tsv" in needed


@pytest.mark.parametrize(
    ("image_key", "spelled"),
    [
        ("{image_id}", "val2014_42"),
        ("{stem}", "COCO_val2014_000000000042"),
        ("COCO_val2014_{number:012d}", "COCO_val2014_000000000042"),
        ("{number}", "42"),
    ],
)
def test_ids_can_be_spelled(tmp_path: Path, image_key: str, spelled: str) -> None:
    corpus = wide("val2014_42")
    path = rows(corpus, PLAIN, tmp_path / "f.tsv", key=spelled)
    source = BottomUpTSV(paths=[str(path)], dim=D, regions=3, image_key=image_key)
    assert convert(source, corpus, tmp_path).image_ids == ["val2014_42"]


@pytest.mark.parametrize(
    ("image_key", "message"),
    [
        ("{id}", r"'\{id\}' does not match image '1' \('id'\); known: image_id, stem .*, number"),
        ("COCO_{image_id:012d}", r"does not match image '1' \(.*format code 'd'"),
        ("COCO", r"gives 'COCO' for both '1' and '2'; use \{image_id\}"),
        ("{", "does not match image '1'"),
    ],
)
def test_wrong_spellings_are_named(tmp_path: Path, image_key: str, message: str) -> None:
    source = BottomUpTSV(paths=["none.tsv"], dim=D, regions=3, image_key=image_key)
    with pytest.raises(ConfigError, match="image_key: .*" + message):
        convert(source, wide("1", "2"), tmp_path)


def test_width_and_height_in_the_wrong_order_are_an_error(tmp_path: Path) -> None:
    corpus = wide("1")
    swapped = ["image_id", "image_h", "image_w", *PLAIN[3:]]
    path = rows(corpus, swapped, tmp_path / "f.tsv")
    message = r"f.tsv: image '1': width, height: 80x100 in the archive, but the image has 100x80; swap"
    with pytest.raises(AtlasError, match=message) as caught:
        convert(BottomUpTSV(paths=[str(path)], dim=D, regions=3, image_key="{stem}"), corpus, tmp_path)
    assert "\n" not in str(caught.value)
    read = BottomUpTSV(paths=[str(path)], columns=swapped, dim=D, regions=3, image_key="{stem}")
    assert convert(read, corpus, tmp_path).read("1").size == (100, 80)


@pytest.mark.parametrize("kind", ["h5", "npz"])
def test_other_archives_compare_the_size_too(tmp_path: Path, kind: str) -> None:
    names = {"features": "features", "boxes": "boxes", "width": "w", "height": "h"}
    arrays = {k: detected(0, 3)[k] for k in ("features", "boxes")}
    source: Any
    if kind == "h5":
        with h5py.File(tmp_path / "a.h5", "w") as h5:
            for name, value in {**arrays, "w": 50, "h": 40}.items():
                h5[f"1/{name}"] = value
        source = BottomUpH5(path=str(tmp_path / "a.h5"), names=names, dim=D, regions=3)
    else:
        np.savez(tmp_path / "1.npz", w=50, h=40, **arrays)
        source = BottomUpNpz(folder=str(tmp_path), names=names, dim=D, regions=3)
    with pytest.raises(AtlasError, match="50x40 in the archive, but the image has 100x80; use"):
        convert(source, wide("1"), tmp_path)


def test_without_images_the_archive_gives_the_size(tmp_path: Path) -> None:
    path = rows(wide("1"), PLAIN, tmp_path / "f.tsv")
    source = BottomUpTSV(paths=[str(path)], dim=D, regions=3, image_key="{stem}")
    assert convert(source, wide("1", width=0, height=0), tmp_path).read("1").size == (100, 80)


def test_boxes_of_another_scale_are_an_error(tmp_path: Path) -> None:
    corpus, columns = wide("1"), ["image_id", "num_boxes", "boxes", "features"]

    def attempt(boxes: np.ndarray, message: str, **settings: Any) -> None:
        path = rows(corpus, columns, tmp_path / "f.tsv", boxes=boxes.astype("<f4"))
        settings = {"dim": D, "regions": 3, "image_key": "{stem}", **settings}
        with pytest.raises(AtlasError, match=message):
            convert(BottomUpTSV(paths=[str(path)], columns=columns, **settings), corpus, tmp_path)

    pixels = detected(0, 3)["boxes"]
    attempt(pixels * 4, "boxes: one exceeds the image of 100x80 pixels")
    attempt(pixels, "boxes: one exceeds the image of 100x80 pixels", boxes_are="relative")
    attempt(pixels / 100, r"boxes: all are within 0..1; set boxes_are to relative")


def test_columns_that_say_half_are_an_error(tmp_path: Path) -> None:
    for columns, message in (
        ([*PLAIN, "boxes"], "'boxes' occurs twice"),
        (["image_id", "img_w", "image_w", *PLAIN[2:]], "'image_w' occurs twice"),
        (["image_id", "image_w", *PLAIN[3:]], "image_w, image_h: one is missing"),
    ):
        with pytest.raises(ConfigError, match=message):
            convert(BottomUpTSV(paths=["f.tsv"], columns=columns, dim=D), wide("1"), tmp_path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    drawn = draw_world(tmp_path_factory.mktemp("world"), {"train": 3}, size=48)
    drawn.examples = [Example(f"{i}.{k}", i, "A lamp.") for i in drawn.scenes for k in range(2)]
    return drawn


def broken_tsv(path: Path, world: Corpus) -> tuple[Path, dict[str, dict[str, np.ndarray]]]:
    """The second of three rows ends in the middle of its features."""
    images = archive(world)
    lines = write_tsv(path, images, WITH_CLASSES).read_text().splitlines()
    lines[1] = lines[1][:-30]
    path.write_text("\n".join(lines) + "\n")
    return path, {k: v for k, v in images.items() if k != "train001"}


def test_a_damaged_row_is_an_error_that_says_how_to_continue(world: Corpus, tmp_path: Path) -> None:
    path, _ = broken_tsv(tmp_path / "f.tsv", world)
    source = BottomUpTSV(paths=[str(path)], columns=WITH_CLASSES, **write_vocabularies(tmp_path))
    with pytest.raises(AtlasError, match=r"line 2: features: .*; skip_damaged=N skips up to N"):
        convert(source, world, tmp_path)
    assert not (tmp_path / "out.h5").exists()


def test_damaged_rows_are_left_out_counted_and_recorded(
    world: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, kept = broken_tsv(tmp_path / "f.tsv", world)
    vocab = write_vocabularies(tmp_path)
    source = BottomUpTSV(paths=[str(path)], columns=WITH_CLASSES, skip_damaged=1, **vocab)
    file = convert(source, world, tmp_path)
    check(file, kept)
    assert file.skipped == ["train001"]
    assert "skipped 1 of 3 images (1 damaged, 0 missing)" in capsys.readouterr().out
    with_rest = with_regions(world, file)
    assert [e.image_id for e in with_rest.examples] == ["train000"] * 2 + ["train002"] * 2
    assert list(with_rest.scenes) == ["train000", "train002"] and with_rest.root == world.root
    assert "2 of 6 examples of drawn are dropped" in capsys.readouterr().out
    with pytest.raises(AtlasError, match="no image 'train001'"):
        file.read("train001")


def test_linkers_pass_over_what_has_no_regions(world: Corpus, tmp_path: Path) -> None:
    from attention_atlas.language.parsed import Parse
    from attention_atlas.linking.run import contexts

    path, _ = broken_tsv(tmp_path / "f.tsv", world)
    source = BottomUpTSV(
        paths=[str(path)], columns=WITH_CLASSES, skip_damaged=1, **write_vocabularies(tmp_path)
    )
    file = convert(source, world, tmp_path)
    seen = [c.parse.id for c in contexts([Parse(e.id, []) for e in world.examples], world, file)]
    assert seen == ["train000.0", "train000.1", "train002.0", "train002.1"]


def test_more_damage_than_allowed_and_missing_rows(world: Corpus, tmp_path: Path) -> None:
    path, _ = broken_tsv(tmp_path / "f.tsv", world)
    lines = path.read_text().splitlines()
    vocab = write_vocabularies(tmp_path)

    def read(text: list[str], skip: int) -> FeaturesFile:
        path.write_text("\n".join(text) + "\n")
        return convert(
            BottomUpTSV(paths=[str(path)], columns=WITH_CLASSES, skip_damaged=skip, **vocab), world, tmp_path
        )

    # A writer that was killed and started again: the rest of a row and the next one share a line.
    assert read([lines[0], lines[1] + lines[2]], 2).skipped == ["train001", "train002"]
    with pytest.raises(AtlasError, match=r"'train002': not in the archive \(1 of 3 .*skip_damaged=N"):
        read([lines[0], lines[1] + lines[2]], 1)
    with pytest.raises(AtlasError, match=r"line 2: features.*skip_damaged=N"):
        read([lines[0][:-30], lines[1], lines[2]], 1)
    with pytest.raises(AtlasError, match="no images were written"):
        read([line[:-30] for line in lines], 3)
    # A row that was written again, in full, further down counts.
    good = write_tsv(tmp_path / "g.tsv", archive(world), WITH_CLASSES).read_text().splitlines()
    assert not read([*lines, good[1]], 1).skipped


@pytest.mark.parametrize("kind", ["h5", "padded", "npz"])
def test_damaged_images_of_other_archives_are_left_out(world: Corpus, tmp_path: Path, kind: str) -> None:
    images = archive(world)
    images["train001"]["features"] = images["train001"]["features"] * np.float32(np.nan)
    vocab: dict[str, Any] = {**write_vocabularies(tmp_path), "skip_damaged": 1, "names": FULL}
    source: Any
    if kind == "npz":
        for image_id, arrays in images.items():
            np.savez(tmp_path / f"{image_id}.npz", **arrays)
        (tmp_path / "train001.npz").write_bytes((tmp_path / "train001.npz").read_bytes()[:300])
        source = BottomUpNpz(folder=str(tmp_path), **vocab)
    else:
        with h5py.File(tmp_path / "a.h5", "w") as h5:
            for image_id, arrays in images.items():
                for name, value in arrays.items():
                    if kind == "h5":
                        h5[f"{image_id}/{name}"] = value
            if kind == "padded":
                h5["image_id"] = list(images)
                h5["n"] = [len(a["boxes"]) for a in images.values()]
                for name in FULL:
                    h5[name] = np.zeros((3, 5, *images["train000"][name].shape[1:]))
                    for i, arrays in enumerate(images.values()):
                        h5[name][i, : len(arrays[name])] = arrays[name]
                vocab |= {"names": {**FULL, "count": "n"}, "ids": "image_id"}
        source = BottomUpH5(path=str(tmp_path / "a.h5"), **vocab)
    file = convert(source, world, tmp_path)
    assert file.skipped == ["train001"] and sorted(file.image_ids) == ["train000", "train002"]
