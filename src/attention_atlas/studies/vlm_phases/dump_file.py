"""Reading the dumps of study 5 (attention_atlas/studies/vlm_phases/run.py): one model over one data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.files import read_json
from attention_atlas.measures.means import Sample
from attention_atlas.recording import Axis, StatisticsStore
from attention_atlas.studies.vlm_phases.run import ABOUT, KEY, KIND, STATISTICS

if TYPE_CHECKING:
    from attention_atlas.studies.vlm_phases.phases import Stability

FIELDS = (
    *("model", "data", "grid", "layers", "groups", "rows", "conditions", "counts", "pieces", "samples"),
    *("pairs", "images"),
)


class Dump:
    """One folder of `dump_phases`, the record of study 5's measures; a context manager. Raises AtlasError for
    a missing or broken file.

    seed: for resampling. phases: those found by the measure `context`; None before it runs."""

    def __init__(self, folder: str | Path, seed: int = 0) -> None:
        self.seed = seed
        self.phases: Stability | None = None
        self.folder = Path(folder)
        path = self.folder / ABOUT
        self.about: dict[str, Any] = read_json(path)
        for name in FIELDS:
            if not isinstance(self.about, dict) or name not in self.about:
                raise AtlasError(f"{path}: {name}: field is missing; run the dump again")
        self.store = StatisticsStore(self.folder / STATISTICS)
        self.model, self.data = str(self.about["model"]), str(self.about["data"])
        self.layers = int(self.about["layers"])

    def __enter__(self) -> Dump:
        self.store.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.store.__exit__(*error)

    def samples(self, part: str) -> list[dict[str, str]]:
        """The samples that `part` (context, lens, norm, knockout) was measured on, in their order."""
        return list(self.about["samples"][: int(self.about["counts"][part])])

    def images(self, part: str) -> np.ndarray:
        return np.array([s["image_id"] for s in self.samples(part)])

    def sample(self, part: str) -> Sample:
        return Sample.of(self.images(part), seed=self.seed)

    def read(self, part: str, name: str) -> list[np.ndarray]:
        """Array `name` of every sample of `part`; their lengths may differ."""
        return [self.store.read(s["id"], KIND, name) for s in self.samples(part)]

    def axis(self, id: str) -> Axis:
        return self.store.axis(id, KEY)

    @property
    def base(self) -> dict[str, Any]:
        return {"model": self.model, "data": self.data}


def opened(folders: Iterable[Path], seed: int = 0) -> Iterator[Dump]:
    """Each dump in turn, open while it is used."""
    for folder in folders:
        with Dump(folder, seed) as dump:
            yield dump
