"""Readers of bottom-up features: archives of each published layout, written here, come out as features.h5."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from vision_world import draw_world

from attention_atlas.corpus import Corpus
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.vision.archives import BottomUpH5, BottomUpNpz
from attention_atlas.vision.bottom_up_tsv import BottomUpTSV
from attention_atlas.vision.features_file import FeaturesFile
from attention_atlas.vision.imported import ImportedFeatures, clean_boxes, read_vocabulary

CONF = Path(__file__).parent.parent / "conf"
OBJECTS = ["chair,armchair", "lamp", "sofa,couch", "rug"]
ATTRIBUTES = ["gray,grey", "red"]
D = 6
WITH_CLASSES = ["image_id", "image_h", "image_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"]
WITH_CLASSES += ["num_boxes", "boxes", "features"]
FULL = {name: name for name in ("features", "boxes", "objects_id", "objects_conf", "attrs_id", "attrs_conf")}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return draw_world(tmp_path_factory.mktemp("world"), {"train": 3}, size=48)


@pytest.fixture
def vocab(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "objects.txt").write_text("\n".join(OBJECTS) + "\n")
    (tmp_path / "attributes.txt").write_text("\n".join(ATTRIBUTES))
    return {
        "objects_vocab": str(tmp_path / "objects.txt"),
        "attributes_vocab": str(tmp_path / "attributes.txt"),
        "objects": 4,
        "attributes": 2,
        "dim": D,
        "regions": 3,
    }


def detected(image: int, count: int) -> dict[str, np.ndarray]:
    """What a detector may have said; confidences differ, so which regions are surest is plain."""
    rng = np.random.default_rng(image)
    low = rng.uniform(0, 20, (count, 2))
    return {
        "boxes": np.concatenate([low, low + rng.uniform(5, 20, (count, 2))], 1).astype("<f4"),
        "features": rng.normal(size=(count, D)).astype("<f4"),
        "objects_id": rng.integers(0, 4, count).astype("<i8"),
        "objects_conf": ((rng.permutation(count) + 1) / 10).astype("<f4"),
        "attrs_id": rng.integers(0, 2, count).astype("<i8"),
        "attrs_conf": np.array([0.1, 0.11, 0.9, 0.05, 0.3][:count], dtype="<f4"),
    }


def archive(world: Corpus, counts: tuple[int, ...] = (3, 2, 5)) -> dict[str, dict[str, np.ndarray]]:
    return {image_id: detected(i, counts[i]) for i, image_id in enumerate(world.scenes)}


def write_tsv(path: Path, images: dict[str, dict[str, np.ndarray]], columns: list[str]) -> Path:
    with path.open("w") as file:
        for image_id, arrays in images.items():
            cells: dict[str, Any] = {"image_id": image_id, "image_w": 48, "image_h": 48}
            cells["num_boxes"] = len(arrays["boxes"])
            cells |= {k: base64.b64encode(np.ascontiguousarray(v)).decode() for k, v in arrays.items()}
            file.write("\t".join(str(cells[name]) for name in columns) + "\n")
    return path


def convert(source: ImportedFeatures, world: Corpus, tmp_path: Path) -> FeaturesFile:
    source.extract(world, tmp_path / "out.h5", tmp_path / "work", "cpu")
    return FeaturesFile(tmp_path / "out.h5")


def check(file: FeaturesFile, images: dict[str, dict[str, np.ndarray]], classes: bool = True) -> None:
    """Every field of every image, region by region."""
    assert sorted(file.image_ids) == sorted(images) and (file.dim, file.regions) == (D, 3)
    for image_id, arrays in images.items():
        row, n = file.read(image_id), min(3, len(arrays["boxes"]))
        keep = list(range(n))
        if len(arrays["boxes"]) > 3 and classes:  # the surest, in the archive's order
            floor = sorted(arrays["objects_conf"])[-3]
            keep = [i for i, c in enumerate(arrays["objects_conf"]) if c >= floor]
        assert row.count == n and row.size == (48, 48)
        for r, i in enumerate(keep):
            assert np.array_equal(row.features[r], arrays["features"][i].astype("float16"))
            assert np.allclose(row.boxes[r], arrays["boxes"][i], atol=1e-4)
            if classes:
                assert row.label[r] == arrays["objects_id"][i]
                assert row.attribute[r] == arrays["attrs_id"][i]
                assert np.isclose(row.label_confidence[r], arrays["objects_conf"][i], atol=1e-3)
        if classes:
            words = []
            for i in keep:
                name = OBJECTS[arrays["objects_id"][i]].split(",")[0]
                attribute = ATTRIBUTES[arrays["attrs_id"][i]].split(",")[0]
                words.append(f"{attribute} {name}" if float(arrays["attrs_conf"][i]) > 0.101 else name)
            assert file.descriptions(image_id) == words


def test_tsv_with_classes(world: Corpus, vocab: dict[str, Any], tmp_path: Path) -> None:
    images = archive(world)
    # Pictures of others may stand in the same file.
    path = write_tsv(tmp_path / "f.tsv", {"other": detected(9, 2), **images}, WITH_CLASSES)
    check(convert(BottomUpTSV(paths=[str(path)], columns=WITH_CLASSES, **vocab), world, tmp_path), images)


def test_tsv_in_parts_with_other_ids_and_without_classes(world: Corpus, tmp_path: Path) -> None:
    columns = ["image_id", "image_w", "image_h", "num_boxes", "boxes", "features"]
    images = archive(world)
    renamed = [{f"room_{k}.jpg": v} for k, v in images.items()]
    paths = [str(write_tsv(tmp_path / f"{i}.tsv", part, columns)) for i, part in enumerate(renamed)]
    source = BottomUpTSV(paths=paths, image_key="room_{image_id}.jpg", dim=D, regions=3)
    file = convert(source, world, tmp_path)
    check(file, images, classes=False)
    with pytest.raises(AtlasError, match="labels: the file has none"):
        file.descriptions(file.image_ids[0])


def test_h5_with_a_group_per_image(world: Corpus, vocab: dict[str, Any], tmp_path: Path) -> None:
    images = archive(world)
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        for image_id, arrays in images.items():
            for name, value in arrays.items():
                h5[f"{image_id}/{name}"] = value
    check(convert(BottomUpH5(path=str(tmp_path / "a.h5"), names=FULL, **vocab), world, tmp_path), images)


@pytest.mark.parametrize("by_file", ["list", "object", None])
def test_h5_padded(world: Corpus, vocab: dict[str, Any], tmp_path: Path, by_file: str | None) -> None:
    images = archive(world)
    ids = list(images)
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        for name in FULL:
            shape = (3, 5, *images[ids[0]][name].shape[1:])
            h5[name] = np.full(shape, 7, images[ids[0]][name].dtype)  # padding must not come through
            for i, arrays in enumerate(images.values()):
                h5[name][i, : len(arrays[name])] = arrays[name]
        h5["n"] = [len(a["boxes"]) for a in images.values()]
        h5["image_id"] = ids
    named: dict[str, Any] = {"ids": "image_id"}
    if by_file:
        value: Any = ids if by_file == "list" else {k: i for i, k in reversed(list(enumerate(ids)))}
        (tmp_path / "ids.json").write_text(json.dumps(value))
        named = {"ids_file": str(tmp_path / "ids.json")}
    names = {**FULL, "count": "n"}
    source = BottomUpH5(path=str(tmp_path / "a.h5"), names=names, **named, **vocab)
    check(convert(source, world, tmp_path), images)


def test_h5_adaptive(world: Corpus, vocab: dict[str, Any], tmp_path: Path) -> None:
    images = archive(world)
    ends = np.cumsum([len(a["boxes"]) for a in images.values()])
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        for name in FULL:
            h5[name] = np.concatenate([a[name] for a in images.values()])
        h5["pos_boxes"] = np.stack([np.r_[0, ends[:-1]], ends], 1)
        h5["image_id"] = list(images)
        h5["w"] = h5["h"] = [48, 48, 48]
    names = {**FULL, "width": "w", "height": "h"}
    source = BottomUpH5(path=str(tmp_path / "a.h5"), names=names, ids="image_id", **vocab)
    check(convert(source, world, tmp_path), images)


@pytest.mark.parametrize("apart", [False, True])
def test_npz_per_image(world: Corpus, vocab: dict[str, Any], tmp_path: Path, apart: bool) -> None:
    images = archive(world)
    for folder in ("att", "box"):
        (tmp_path / folder).mkdir()
    for image_id, arrays in images.items():
        # A pickled object beside the arrays (as some ports of the detector write) is left alone.
        inside = {k: v for k, v in arrays.items() if k != "boxes"}
        if apart:
            np.save(tmp_path / "box" / f"{image_id}.npy", arrays["boxes"])
        else:
            inside["boxes"] = arrays["boxes"]
        np.savez(tmp_path / "att" / f"{image_id}.npz", info=np.array({"x": 1}, dtype=object), **inside)
    boxes = str(tmp_path / "box") if apart else None
    source = BottomUpNpz(folder=str(tmp_path / "att"), boxes_folder=boxes, names=FULL, **vocab)
    check(convert(source, world, tmp_path), images)


def test_npz_of_objects_is_refused_and_not_run(world: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "att"
    folder.mkdir()
    for image_id, arrays in archive(world).items():
        objects = np.array([None, arrays["features"]], dtype=object)
        np.savez(folder / f"{image_id}.npz", feat=objects, bbox=arrays["boxes"])
    with pytest.raises(AtlasError, match=r"train000.npz: holds pickled objects, which are not read"):
        convert(BottomUpNpz(folder=str(folder), dim=D, regions=3), world, tmp_path)
    (folder / "train000.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(AtlasError, match=r"train000.npz: damaged"):
        convert(BottomUpNpz(folder=str(folder), dim=D, regions=3), world, tmp_path)


def test_relative_boxes_and_a_kept_background_class(
    world: Corpus, vocab: dict[str, Any], tmp_path: Path
) -> None:
    images = archive(world)
    shifted = {
        k: {**a, "boxes": a["boxes"] / np.float32(48), "objects_id": a["objects_id"] + 1}
        | {"attrs_id": a["attrs_id"] + 1}
        for k, a in images.items()
    }
    path = write_tsv(tmp_path / "f.tsv", shifted, WITH_CLASSES)
    source = BottomUpTSV(
        paths=[str(path)], columns=WITH_CLASSES, boxes_are="relative", first_class=1, **vocab
    )
    check(convert(source, world, tmp_path), images)


def test_boxes_are_cut_at_the_border_and_never_flat() -> None:
    boxes = np.array([[-5, 2, 30, 99], [10, 10, 10, 10], [40, 40, 39, 60], [1, 2, 3, 4.5]])
    expected = [[0, 2, 30, 50], [10, 10, 11, 11], [39, 40, 40, 50], [1, 2, 3, 4.5]]
    assert clean_boxes(boxes, (40, 50)).tolist() == expected


def damage(
    images: dict[str, dict[str, np.ndarray]], edit: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> dict[str, dict[str, np.ndarray]]:
    return {k: (edit(a) if k == "train001" else a) for k, a in images.items()}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda a: {**a, "features": a["features"] * np.float32(np.nan)}, "'train001': features: not finite"),
        (lambda a: {**a, "boxes": a["boxes"] * np.float32(np.nan)}, "'train001': boxes: not finite"),
        (lambda a: {**a, "objects_id": a["objects_id"] + 4}, "'train001': label: index outside .* 4 labels"),
        (lambda a: {**a, "attrs_conf": a["attrs_conf"] * 19}, "attribute_confidence: not within 0..1"),
        (lambda a: {k: v[:0] for k, v in a.items()}, "line 2: num_boxes: 0 objects"),
        (lambda a: {**a, "features": a["features"].ravel()[:-1]}, "line 2: features: 44 bytes do not make 2"),
        (lambda a: {**a, "boxes": a["boxes"][:, :3]}, r"'train001': boxes: shape \(2, 3\)"),
        (lambda a: {**a, "objects_conf": np.tile(a["objects_conf"], 2)}, "objects_conf: 2 numbers per box"),
        (lambda a: {**a, "features": a["features"][:, :5]}, r"features: shape \(2, 5\), expected \(2, 6\)"),
    ],
)
def test_bad_tsv_values(
    world: Corpus, vocab: dict[str, Any], tmp_path: Path, edit: Any, message: str
) -> None:
    path = write_tsv(tmp_path / "f.tsv", damage(archive(world), edit), WITH_CLASSES)
    with pytest.raises(AtlasError, match=message) as caught:
        convert(BottomUpTSV(paths=[str(path)], columns=WITH_CLASSES, **vocab), world, tmp_path)
    assert "\n" not in str(caught.value) and not (tmp_path / "out.h5").exists()


def test_bad_tsv_files(world: Corpus, vocab: dict[str, Any], tmp_path: Path) -> None:
    images = archive(world)
    path = write_tsv(tmp_path / "f.tsv", images, WITH_CLASSES)
    text = path.read_text()

    def attempt(message: str, kind: type[AtlasError] = AtlasError, **settings: Any) -> None:
        settings = {"paths": [str(path)], "columns": WITH_CLASSES, **vocab, **settings}
        with pytest.raises(kind, match=message):
            convert(BottomUpTSV(**settings), world, tmp_path)

    attempt(r"no such file", paths=[str(tmp_path / "none.tsv")])
    attempt(r"'colour' is unknown", ConfigError, columns=["colour"])
    attempt(r"'boxes' is missing", ConfigError, columns=["image_id", "num_boxes", "features"])
    attempt(
        r"line 1: has 10 columns, expected 6", columns=["image_id", *WITH_CLASSES[-3:], "image_w", "image_h"]
    )
    attempt(r"objects_vocab: has 4 names, expected 1600", objects=1600)
    attempt(r"boxes_are: 'feet' is unknown", ConfigError, boxes_are="feet")
    attempt(r"image 'xtrain000': not in the archive \(3 of 3", image_key="x{image_id}")
    path.write_text(text[: len(text) - 400])  # the last line has lost its end
    attempt(r"line 3: (has \d+ columns|features)")
    path.write_text(text + text.split("\n")[0] + "\n")
    attempt(r"image 'train000': image_id: occurs twice")
    path.write_text(text.replace("\t3\t", "\tthree\t"))
    attempt("line 1: num_boxes, image_w, image_h: not whole numbers")
    path.write_text(text.replace("=", "!"))
    attempt("not base64")
    path.write_bytes(bytes(range(128, 256)))
    attempt("not a text file")


def test_bad_h5(world: Corpus, vocab: dict[str, Any], tmp_path: Path) -> None:
    images = archive(world)
    path = tmp_path / "a.h5"

    def attempt(message: str, kind: type[AtlasError] = AtlasError, **settings: Any) -> None:
        with pytest.raises(kind, match=message):
            convert(BottomUpH5(**{"path": str(path), "names": FULL, **vocab, **settings}), world, tmp_path)

    attempt("no such file")
    path.write_bytes(b"not hdf5")
    attempt("not an HDF5 file")
    with h5py.File(path, "w") as h5:
        for name in FULL:
            h5[name] = np.concatenate([a[name] for a in images.values()])
    attempt("pos_boxes: missing", ids="image_id")
    with h5py.File(path, "a") as h5:
        h5["pos_boxes"] = [[0, 3], [3, 5]]
    attempt("features.ids: give the data set of image ids", ConfigError)
    attempt("image_id: missing; correct features.ids", ids="image_id")
    (tmp_path / "ids.json").write_text(json.dumps(list(images)))
    attempt("image 'train002': row 2 of 2 images", ids_file=str(tmp_path / "ids.json"))
    attempt("'boxen' is unknown", ConfigError, names={"boxen": "b"})
    with h5py.File(path, "w") as h5:
        for image_id, arrays in images.items():
            h5[f"{image_id}/features"], h5[f"{image_id}/boxes"] = arrays["features"], arrays["boxes"]
    attempt("objects_id: missing, but a vocabulary is given")


def test_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_text("chair\n\nlamp\n")
    with pytest.raises(AtlasError, match="line 2: is empty"):
        read_vocabulary(path, None, "objects_vocab")
    path.write_text("chair,seat\nlamp")  # the published lists end without a newline
    assert read_vocabulary(path, 2, "objects_vocab") == ["chair,seat", "lamp"]
    assert read_vocabulary(None, 1600, "objects_vocab") == []
    path.unlink()
    with pytest.raises(AtlasError, match="objects_vocab: no such file"):
        read_vocabulary(path, None, "objects_vocab")


@pytest.mark.parametrize("name", ["bottom_up_tsv", "bottom_up_h5", "bottom_up_npz"])
def test_the_shipped_configs_read_an_archive(
    name: str, world: Corpus, vocab: dict[str, Any], tmp_path: Path
) -> None:
    """The YAML as it is, with only sizes and the lists' place changed."""
    images = archive(world)
    root = tmp_path / "corpus"
    shutil.copytree(world.root, root)
    (root / "features").mkdir()
    write_tsv(root / "features.tsv", images, WITH_CLASSES)
    with h5py.File(root / "features.hdf5", "w") as h5:
        for image_id, arrays in images.items():
            np.savez(
                root / "features" / f"{image_id}.npz",
                feat=arrays["features"],
                bbox=arrays["boxes"],
                **{k: v for k, v in arrays.items() if k not in ("features", "boxes")},
            )
            for key, value in arrays.items():
                h5[f"{image_id}/{key}"] = value
    overrides = [f"+features={name}", f"+data.root={root}", "features.objects=4", "features.attributes=2"]
    overrides += [f"features.dim={D}", "features.regions=3"]
    overrides += [f"features.{k}={vocab[k]}" for k in ("objects_vocab", "attributes_vocab")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(None, overrides)
    check(convert(instantiate(config.features), world, tmp_path), images)
