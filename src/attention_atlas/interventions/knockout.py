"""Attention knock-out for a free-form answer: how much less probable does it become if parts of the sequence
cannot read each other (Geva et al. 2023; for images Zhang et al. 2024)?

A cut also puts the model in a state that it was never trained in, which lowers the probability whatever the
image. So every cut is repeated with another image and the same answer:

    change       log p(answer | own image, cut) − log p(answer | own image)
    other        the same difference where the other image is shown throughout
    net          change − other: what the cut withholds of the own image's information

If the text is cut off from the image in all layers, net is log p(answer | other) − log p(answer | own).
Axes: C cut, N token of the answer.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attention_atlas.capture.knockout import cut_edges, knocked_out
from attention_atlas.errors import AtlasError, ConfigError, did_you_mean
from attention_atlas.files import write_json, write_text
from attention_atlas.interventions.answers import Answered, answer_log_probs, answered, opened, same_answer
from attention_atlas.look.inputs import Sequenced

SCHEMA = "atlas.knockout/1"
FILES = ("knockout.json", "knockout.csv")
CUTS = ("text → image", "image → text", "answer → image")
COLUMNS = ("cut", "first", "last", "head", "word", "position", "log_prob", "change", "other", "net")


@dataclass(frozen=True)
class Cut:
    """Queries that may not read keys (capture.knockout.cut_edges) in layers first..last, both included, in
    all heads or (head) one."""

    query: str
    key: str
    first: int
    last: int
    head: int | None = None

    @property
    def name(self) -> str:
        return f"{self.query} → {self.key}"


@dataclass
class KnockOut:
    """log-probabilities of the answer's tokens: plain_N, cut_CN with the own image, other_plain_N,
    other_CN with another one. words: (text, its tokens in N)."""

    model: str
    prompt: str
    answer: str
    tokens: list[str]
    words: list[tuple[str, list[int]]]
    control: str
    cuts: list[Cut]
    plain_N: np.ndarray
    cut_CN: np.ndarray
    other_plain_N: np.ndarray
    other_CN: np.ndarray

    @property
    def change_CN(self) -> np.ndarray:
        return self.cut_CN - self.plain_N

    @property
    def other_change_CN(self) -> np.ndarray:
        return self.other_CN - self.other_plain_N

    @property
    def net_CN(self) -> np.ndarray:
        return self.change_CN - self.other_change_CN

    def rows(self) -> list[dict[str, Any]]:
        """One row for each cut and word, and one (word "", position −1) for the whole answer, in nats.
        log_prob: with the own image and the cut. A row without a cut (cut "") comes first."""
        every = list(range(len(self.plain_N)))
        parts = [("", -1, every)] + [(text, n, at) for n, (text, at) in enumerate(self.words)]
        out = []
        for c, cut in [(-1, None), *enumerate(self.cuts)]:
            for text, position, at in parts:
                row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"word": text, "position": position}
                if cut is None:
                    row["log_prob"] = self.plain_N[at].sum()
                    row["other"] = (self.other_plain_N - self.plain_N)[at].sum()
                else:
                    row |= {"cut": cut.name, "first": cut.first, "last": cut.last}
                    row["head"] = "" if cut.head is None else cut.head
                    row["log_prob"] = self.cut_CN[c, at].sum()
                    row["change"] = self.change_CN[c, at].sum()
                    row["other"] = self.other_change_CN[c, at].sum()
                    row["net"] = self.net_CN[c, at].sum()
                out.append(
                    {n: round(float(v), 6) if isinstance(v, np.floating) else v for n, v in row.items()}
                )
        return out

    def save(self, folder: str | Path) -> Path:
        """Write knockout.json and knockout.csv (the rows)."""
        folder, rows = Path(folder), self.rows()
        about: dict[str, Any] = {
            "schema": SCHEMA,
            "model": self.model,
            "prompt": self.prompt,
            "answer": self.answer,
        }
        about |= {"control": self.control, "tokens": self.tokens, "unit": "nats", "rows": rows}
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_json(folder / FILES[0], about)
        write_text(folder / FILES[1], text.getvalue())
        return folder


def layer_windows(depth: int, count: int) -> list[tuple[int, int]]:
    """`count` windows (first, last) that share the layers as evenly as possible, and one of all layers."""
    if not 1 <= count <= depth:
        raise ConfigError(f"--windows: {count} is outside 1..{depth}, the model's number of layers")
    edges = [round(depth * n / count) for n in range(count + 1)]
    windows = [(a, b - 1) for a, b in itertools.pairwise(edges)]
    return windows if count == 1 else [*windows, (0, depth - 1)]


def knock_out(
    model: Any,
    processor: Any,
    image: Any,
    prompt: str,
    answer: str | None = None,
    *,
    other: Any = None,
    cuts: Sequence[str] = CUTS,
    windows: Sequence[tuple[int, int]] | int | None = None,
    heads: Sequence[tuple[int, int]] = (),
    max_new_tokens: int = 40,
) -> KnockOut:
    """Cut attention while the model reads prompt and answer, once for each cut and window or head.

    image, answer, max_new_tokens: as in `Atlas.look`. other: the control's image, or as many as `image`
    has; None: the own images, painted over with their mean colour. cuts: "query → key" (cut_edges; "->"
    and "-" also separate). windows: layers (first, last), or how many windows of equal width to make, with
    one of all layers (default: 8, or one for each layer of a smaller model). heads: (layer, head), cut alone.

    One forward pass for each cut, and one with the other image. Raises ConfigError for a wrong argument,
    AtlasError for a model whose attention cannot be cut (capture.knockout).
    """
    model.eval()
    text = model.config.get_text_config()
    depth, width = int(text.num_hidden_layers), int(text.num_attention_heads)
    if windows is None:
        windows = min(8, depth)
    chosen = layer_windows(depth, windows) if isinstance(windows, int) else list(windows)
    for first, last in chosen:
        if not 0 <= first <= last < depth:
            raise ConfigError(f"--windows: layers {first}..{last} are outside 0..{depth - 1}")
    for layer, head in heads:
        if not (0 <= layer < depth and 0 <= head < width):
            raise ConfigError(f"--heads: layer {layer}, head {head}: has {depth} layers of {width} heads")
    pairs = [_pair(name) for name in cuts]
    made = [Cut(query, key, a, b) for query, key in pairs for a, b in chosen]
    made += [Cut(query, key, layer, layer, head) for query, key in pairs for layer, head in heads]
    if not made:
        raise ConfigError("--cut: nothing is cut; name at least one cut, and a window or a head")
    own = answered(model, processor, image, prompt, answer, max_new_tokens)
    control, images = "another image", opened(other) if other is not None else []
    if other is None:
        control, images = "own image in its mean colour", [plain_image(p) for p in own.images]
    if len(images) != len(own.images):
        raise ConfigError(f"--other: {len(images)} images for {len(own.images)}; give one for each")
    plain_N, cut_CN = _run(model, own.whole, made)
    other_plain_N, other_CN = _run(model, same_answer(model, processor, own, images), made)
    pieces = getattr(processor, "tokenizer", processor).convert_ids_to_tokens(own.new)
    return KnockOut(
        model=model.config.name_or_path or type(model).__name__,
        prompt=prompt,
        answer=own.whole.answer,
        tokens=[str(piece) for piece in pieces],
        words=_words(own),
        control=control,
        cuts=made,
        plain_N=plain_N,
        cut_CN=cut_CN,
        other_plain_N=other_plain_N,
        other_CN=other_CN,
    )


def plain_image(image: Any) -> Any:
    """An image of the same size in its mean colour."""
    from PIL import Image

    mean = np.asarray(image, dtype=np.float64).mean((0, 1))
    return Image.new("RGB", image.size, tuple(int(x) for x in np.rint(mean)))


def _pair(name: str) -> tuple[str, str]:
    for mark in ("→", "->", "-"):
        query, found, key = name.partition(mark)
        if found:
            return query.strip(), key.strip()
    raise ConfigError(f"--cut: '{name}' is no cut{did_you_mean(name, CUTS)}")


def _words(own: Answered) -> list[tuple[str, list[int]]]:
    return [(word.text, [p - own.whole.start for p in word.positions]) for word in own.words]


@torch.no_grad()
def _run(model: Any, whole: Sequenced, cuts: Sequence[Cut]) -> tuple[np.ndarray, np.ndarray]:
    """(plain (N,), with each cut (C,N)) in nats."""
    plain_N = answer_log_probs(model, whole).cpu().double().numpy()
    rows = []
    for cut in cuts:
        edges = cut_edges([whole.roles], cut.query, cut.key, whole.start)
        if not (edges.within_BSS.any() or edges.across_BS.any()):
            raise AtlasError(f"--cut: {cut.name}: the sequence has no such positions")
        heads = None if cut.head is None else [cut.head]
        with knocked_out(model, edges, range(cut.first, cut.last + 1), heads):
            rows.append(answer_log_probs(model, whole).cpu().double().numpy())
    return plain_N, np.stack(rows)
