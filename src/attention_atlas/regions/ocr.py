"""Read the words in images with RapidOCR: PP-OCR's detector and recogniser, weights included.

Small images are enlarged first: letters of ten pixels are too small for the detector.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from attention_atlas.data.images import read_rgb
from attention_atlas.data.ocr_file import OcrImage, OcrToken, look_of, read_ocr, write_ocr
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.progress import progress

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus

Box = tuple[float, float, float, float]
BLOCK = 24  # images per task of a worker process, stored together


class OcrSource(Protocol):
    """The interface of the classes that conf/ocr/<name>.yaml selects."""

    def extract(self, corpus: Corpus, out: Path, work: Path) -> None:
        """Write the OCR file of the corpus."""
        ...


@dataclass
class RapidOcr:
    """scale: enlargement factor of the images. side: minimum length in pixels of the shorter side of the
    detector's input (PP-OCR: 736). least: minimum confidence of a line. longest: maximum number of words per
    image; the most confident are kept (M4C: 50). only_texts: if scenes are annotated, read only images
    whose scene contains words. workers: number of processes, 0: one per core."""

    scale: float = 2.0
    side: int = 512
    least: float = 0.5
    longest: int = 50
    only_texts: bool = False
    workers: int = 1

    def __post_init__(self) -> None:
        if self.scale <= 0 or self.side < 32 or self.longest < 1:
            raise ConfigError("RapidOcr: scale must be above 0, side at least 32, longest at least 1")
        self._engine: Any = None

    def extract(self, corpus: Corpus, out: Path, work: Path) -> None:
        """Read the images in the order of their ids; resumes an interrupted run from `work`."""
        wanted = sorted({e.image_id for e in corpus.examples})
        if self.only_texts:
            wanted = [i for i in wanted if any(o.text for o in corpus.scenes[i].objects)]
        if not wanted:
            raise AtlasError(f"{corpus.root}: no image with words; set only_texts to false")
        import os

        from joblib import Parallel, delayed, parallel_config

        part = Path(work) / "ocr.jsonl"
        done = list(read_ocr(part).values()) if part.exists() else []
        have = {p.image_id for p in done}
        left = [i for i in wanted if i not in have]
        blocks = [left[i : i + BLOCK] for i in range(0, len(left), BLOCK)]
        count = max(1, min(self.workers or os.cpu_count() or 1, len(blocks)))
        with parallel_config("loky", inner_max_num_threads=1), Parallel(count, return_as="generator") as pool:
            jobs = pool(
                delayed(_read_block)(self, [(i, corpus.image_path(i)) for i in block]) for block in blocks
            )
            for found in progress(jobs, "ocr", len(blocks)):
                done += found
                write_ocr(part, done)
        write_ocr(out, done)

    def read(self, image_id: str, image_HWC: np.ndarray) -> OcrImage:
        """The words of one RGB image (H,W,3) uint8, sorted by row, then column of their boxes."""
        from PIL import Image

        height, width = image_HWC.shape[:2]
        large = Image.fromarray(image_HWC).resize(
            (round(width * self.scale), round(height * self.scale)), Image.Resampling.BICUBIC
        )
        # The package's networks expect BGR, as in OpenCV.
        found = self.engine()(np.ascontiguousarray(np.asarray(large)[:, :, ::-1]), use_cls=False)
        tokens: list[OcrToken] = []
        if getattr(found, "txts", None) is not None and found.boxes is not None:
            for quad, text, confidence in zip(found.boxes, found.txts, found.scores):
                line = np.asarray(quad, dtype=float) / self.scale
                x, y = line[:, 0].clip(0, width), line[:, 1].clip(0, height)
                box = (float(x.min()), float(y.min()), float(x.max()), float(y.max()))
                if box[2] - box[0] < 1 or box[3] - box[1] < 1 or confidence < self.least:
                    continue
                for word, part in split_line(text, box):
                    rounded = tuple(round(v, 1) for v in part)
                    share = round(min(max(float(confidence), 0.0), 1.0), 4)
                    tokens.append(OcrToken(word, rounded, share, look_of(image_HWC, part)))  # type: ignore[arg-type]
        kept = sorted(tokens, key=lambda t: (-t.confidence, t.box))[: self.longest]
        kept.sort(key=lambda t: (t.box[1], t.box[0], t.text))
        return OcrImage(image_id, (width, height), kept, self.source())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}  # networks are not sent to other processes

    def source(self) -> str:
        from importlib.metadata import version

        return f"rapidocr {version('rapidocr')}"

    def engine(self) -> Any:
        if self._engine is None:
            try:
                from rapidocr import RapidOCR
            except ImportError:
                raise AtlasError(
                    "ocr: RapidOCR is not installed: pip install 'attention-atlas[scene-text]'"
                ) from None
            self._engine = RapidOCR(
                params={
                    "Global.log_level": "error",
                    "Global.use_cls": False,
                    "Global.text_score": self.least,
                    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                    "Det.limit_side_len": self.side,
                }
            )
        return self._engine


def _read_block(reader: RapidOcr, block: list[tuple[str, Path]]) -> list[OcrImage]:
    return [reader.read(image_id, np.asarray(read_rgb(path))) for image_id, path in block]


def split_line(text: str, box: Box) -> list[tuple[str, Box]]:
    """The words of a line and their boxes, dividing the line's width in proportion to the letters.

    >>> split_line("NO DOGS", (0.0, 0.0, 70.0, 10.0))
    [('NO', (0.0, 0.0, 20.0, 10.0)), ('DOGS', (30.0, 0.0, 70.0, 10.0))]
    """
    wide = (box[2] - box[0]) / max(len(text), 1)
    return [
        (m.group(), (box[0] + m.start() * wide, box[1], box[0] + m.end() * wide, box[3]))
        for m in re.finditer(r"\S+", text)
    ]


def words_on(image: OcrImage, box: Box) -> list[int]:
    """Indices of the tokens whose centre is in a box, in reading order: by lines, then from the left."""
    inside = [
        (i, t)
        for i, t in enumerate(image.tokens)
        if box[0] <= (t.box[0] + t.box[2]) / 2 < box[2] and box[1] <= (t.box[1] + t.box[3]) / 2 < box[3]
    ]
    inside.sort(key=lambda item: (item[1].box[1] + item[1].box[3]) / 2)
    lines: list[list[tuple[int, OcrToken]]] = []
    for item in inside:
        middle = (item[1].box[1] + item[1].box[3]) / 2
        if lines and middle < lines[-1][0][1].box[3] and middle > lines[-1][0][1].box[1]:
            lines[-1].append(item)
        else:
            lines.append([item])
    return [i for line in lines for i, _ in sorted(line, key=lambda item: item[1].box[0])]
