"""Readers of region features kept as HDF5 (one file) or npz (one file per image)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.data.corpus import Scene
from attention_atlas.data.json_rows import identifier
from attention_atlas.data.json_rows import number as whole
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import read_json
from attention_atlas.regions.imported import ImportedFeatures, Record, optional

_FIELDS = (
    "features",
    "boxes",
    "width",
    "height",
    "count",
    "objects_id",
    "objects_conf",
    "attrs_id",
    "attrs_conf",
)


def _check_names(names: Mapping[str, str]) -> None:
    for name in names:
        if name not in _FIELDS:
            raise ConfigError(f"archive: names: '{name}' is unknown; known: {', '.join(_FIELDS)}")
    for name in ("features", "boxes"):
        if name not in names:
            raise ConfigError(f"archive: names: '{name}' is missing; give its name in the archive")


def _record(arrays: Mapping[str, Any], names: Mapping[str, str], at: str) -> Record:
    """A record from named arrays of one image, without padding."""

    def get(name: str) -> Any:
        return optional(arrays, names.get(name))

    for name in ("features", "boxes"):
        if get(name) is None:
            raise AtlasError(f"{at}: {names[name]}: is missing; create the archive again or correct names")
    try:
        features = np.asarray(get("features"))
        count = len(features) if get("count") is None else int(np.asarray(get("count")))
        size = None
        if get("width") is not None and get("height") is not None:
            size = (int(np.asarray(get("width"))), int(np.asarray(get("height"))))
        classes = {name: get(name) for name in _FIELDS[5:]}
    except ValueError:  # numpy refuses pickled objects, which can execute code
        raise AtlasError(f"{at}: contains pickled objects, which are not read; save plain arrays") from None
    if features.ndim != 2:
        raise AtlasError(f"{at}: {names['features']}: shape {features.shape}, expected (regions, dim)")
    return Record(
        features=features[:count],
        boxes=np.asarray(get("boxes"))[:count],
        size=size,
        **{k: None if v is None else np.asarray(v)[:count] for k, v in classes.items()},
    )


@dataclass(kw_only=True)
class BottomUpH5(ImportedFeatures):
    """One HDF5 file in one of three layouts, recognised by its contents.

    - a group per image, `/<key>/<features>`, `/<key>/<boxes>`, ...;
    - padded: `<features>` (I,N,D), `<boxes>` (I,N,4), with `count` (I,) if images have fewer regions;
    - adaptive: `<features>` (R,D), `<boxes>` (R,4) of all images concatenated, and `ranges` (I,2): first row
      and last row + 1 of each image.

    The last two take image ids from a data set `ids` (I,) of the file, or from `ids_file`: JSON, either a
    list of ids in row order or an object {id: row}.
    """

    path: str
    names: dict[str, str] = field(default_factory=lambda: {"features": "features", "boxes": "boxes"})
    ids: str | None = None
    ids_file: str | None = None
    ranges: str = "pos_boxes"

    def where(self) -> str:
        return self.path

    def records(self, wanted: Mapping[str, Scene]) -> Iterator[tuple[str, Callable[[], Record]]]:
        import h5py

        _check_names(self.names)
        path = Path(self.path)
        if not path.exists():
            raise AtlasError(f"{path}: no such file; see docs/features.md for where it comes from")
        try:
            h5 = h5py.File(path, "r")
        except OSError:
            raise AtlasError(f"{path}: not an HDF5 file, or truncated; download it again") from None
        with h5:
            try:
                yield from self._rows(h5, wanted)
            except OSError:
                raise AtlasError(f"{path}: cannot be read to its end; download it again") from None

    def _rows(self, h5: Any, wanted: Mapping[str, Scene]) -> Iterator[tuple[str, Callable[[], Record]]]:
        if self.names["features"] not in h5:
            for key in wanted:
                if key in h5:
                    yield key, partial(self._read, h5[key], {name: () for name in h5[key]}, key)
            return
        features = h5[self.names["features"]]
        adaptive = features.ndim == 2
        if adaptive and self.ranges not in h5:
            raise AtlasError(
                f"{self.path}: {self.ranges}: is missing; set ranges to the data set of row ranges"
            )
        images = len(h5[self.ranges]) if adaptive else len(features)
        for row, key in self._ids(h5):
            if key not in wanted:
                continue
            if not 0 <= row < images:
                raise AtlasError(
                    f"{self.path}: image '{key}': row {row} of {images} images; give the ids of this file"
                )
            which: Any = slice(*(int(v) for v in h5[self.ranges][row])) if adaptive else row
            # Widths, heights and counts are per image even if regions are not.
            places = {
                name: row if field_name in ("width", "height", "count") else which
                for field_name, name in self.names.items()
                if name in h5
            }
            yield key, partial(self._read, h5, places, key)

    def _read(self, h5: Any, places: Mapping[str, Any], key: str) -> Record:
        """places: {name of a data set: index to read}."""
        at = f"{self.path}: image '{key}'"
        try:
            arrays = {name: h5[name][place] for name, place in places.items()}
        except (OSError, IndexError, ValueError, AttributeError, TypeError):
            raise AtlasError(f"{at}: cannot be read; the file is damaged, download it again") from None
        return _record(arrays, self.names, at)

    def _ids(self, h5: Any) -> list[tuple[int, str]]:
        """(row, key) in row order."""
        if self.ids is not None:
            if self.ids not in h5:
                raise AtlasError(f"{self.path}: {self.ids}: is missing; correct ids")
            values = [v.decode() if isinstance(v, bytes) else v for v in h5[self.ids][()].tolist()]
            return [(i, identifier({self.ids: v}, self.ids, self.path)) for i, v in enumerate(values)]
        if self.ids_file is None:
            raise ConfigError(
                "BottomUpH5: ids: name the data set of image ids, or give a JSON file as ids_file"
            )
        path = Path(self.ids_file)
        values = read_json(path, "write ids_file: a list of ids or an object {id: row}")
        at = f"{path}: ids_file"
        if isinstance(values, list):
            return [(i, identifier({"id": key}, "id", f"{at}: {i}")) for i, key in enumerate(values)]
        if not isinstance(values, dict):
            raise AtlasError(f"{at}: is neither a list of ids nor an object {{id: row}}; correct the file")
        return sorted((whole(values, key, at), key) for key in values)


@dataclass(kw_only=True)
class BottomUpNpz(ImportedFeatures):
    """A folder with one npz per image, `<folder>/<key>.npz`, and optionally another folder of boxes,
    `<boxes_folder>/<key>.npy`, as the object relation transformer keeps them (`cocobu_att`, `cocobu_box`)."""

    folder: str
    boxes_folder: str | None = None
    names: dict[str, str] = field(default_factory=lambda: {"features": "feat", "boxes": "bbox"})

    def where(self) -> str:
        return self.folder

    def records(self, wanted: Mapping[str, Scene]) -> Iterator[tuple[str, Callable[[], Record]]]:
        _check_names(self.names)
        if not Path(self.folder).is_dir():
            raise AtlasError(f"{self.folder}: no such folder; see docs/features.md for where it comes from")
        for key in wanted:
            path = Path(self.folder) / f"{key}.npz"
            if path.exists():
                yield key, partial(self._read, key, path)

    def _read(self, key: str, path: Path) -> Record:
        arrays: dict[str, Any] = dict(self._load(path))
        if self.boxes_folder is not None:
            arrays[self.names["boxes"]] = self._load(Path(self.boxes_folder) / f"{key}.npy")
        return _record(arrays, self.names, str(path))

    def _load(self, path: Path) -> Any:
        try:
            loaded = np.load(path)
            if isinstance(loaded, np.ndarray):
                return loaded
            wanted = set(self.names.values())
            with loaded:
                return {name: loaded[name] for name in loaded.files if name in wanted}
        except FileNotFoundError:
            raise AtlasError(f"{path}: no such file; add it or correct boxes_folder") from None
        except Exception as error:  # zipfile and numpy raise various exceptions for damaged files
            what = (
                "contains pickled objects, which are not read"
                if "pickle" in str(error).lower()
                else "damaged"
            )
            raise AtlasError(f"{path}: {what}; save it as plain arrays") from None
