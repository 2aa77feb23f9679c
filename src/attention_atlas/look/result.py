"""The result of a look: statistics of one sequence, as arrays, and as the three files of `save`.

Axes: L layer, M layers whose maps are kept, H head, S position (query or key), R queries of words, W word,
T token of an image, G group. In a model that reads images by cross-attention, keys are not positions of
the sequence but those of `key_roles`; wherever S is an axis of keys, it counts them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.errors import ConfigError
from attention_atlas.files import results_in, write_text
from attention_atlas.look.sinks import look_sinks
from attention_atlas.look.things import Thing, shares_in_boxes
from attention_atlas.look.words import Word

SCHEMA = "atlas.look/2"
FILES = ("statistics.h5", "summary.json", "index.html")


@dataclass
class NamedImage:
    """name: of its file. pixels: PIL image in RGB, upright; boxes refer to its pixels."""

    name: str
    pixels: Any


@dataclass
class Look:
    """values {statistic: (L,H,S,...)}: mass (G), entropy, norm_mass (G) of every layer and position.

    word_values {rows, norm_rows: (M,H,W,S); rollout: (M,W,T)}: attention of the words, in the layers `kept`.
    received_LHS: mean over words of the attention that each key receives. visible: for each layer (R,S),
    the keys that the queries `query_R` may attend to. sinks: keys. boxes_S4, image_S: see `token_boxes`.
    notes: what the page cannot show, one line each. things: boxes in the images; predicted_by: the detector
    that they are predictions of, None for annotations. cross: whether the keys are those of cross-attention;
    key_tokens, key_roles: of the keys (default: of the sequence).

    A vision model has no prompt and no answer: see vision_atlas.py. visible then has one query of each word.
    """

    model: str
    prompt: str
    answer: str
    generated: bool
    images: list[NamedImage]
    tokens: list[str]
    roles: list[str]
    words: list[Word]
    layers: list[int]
    kept: list[int]
    groups: list[str]
    values: dict[str, np.ndarray]
    word_values: dict[str, np.ndarray]
    received_LHS: np.ndarray
    visible: list[np.ndarray]
    query_R: list[int]
    sinks: list[int]
    boxes_S4: np.ndarray
    image_S: np.ndarray
    notes: list[str] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    predicted_by: str | None = None
    cross: bool = False
    key_tokens: list[str] = field(default_factory=list)
    key_roles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key_tokens = self.key_tokens or self.tokens
        self.key_roles = self.key_roles or self.roles

    @property
    def is_vision(self) -> bool:
        """Whether the model sees images only."""
        return all(word.part == "image" for word in self.words)

    @cached_property
    def image_T(self) -> np.ndarray:
        """The keys that are image tokens."""
        return np.flatnonzero(np.array(self.key_roles) == "image")

    @cached_property
    def statistics(self) -> dict[str, np.ndarray]:
        """Of each word, the mean over its pieces: mass, norm_mass (L,H,W,G) shares of attention and of
        α·‖f(x)‖; entropy (L,H,W) in nats; chance (L,W,G), the mass of uniform attention to visible keys."""
        out = {name: self.of_words(value) for name, value in self.values.items()}
        if "norm_mass" in out:
            out["norm_mass"] = out["norm_mass"] / out["norm_mass"].sum(-1, keepdims=True)
        member_SG = np.array(self.key_roles)[:, None] == np.array(self.groups)
        out["chance"] = self.uniform(member_SG)
        return out

    def of_words(self, value_LHS: np.ndarray) -> np.ndarray:
        """(L,H,W,...): the mean over the queries of each word."""
        return np.stack([value_LHS[:, :, word.rows].mean(2) for word in self.words], 2)

    @property
    def seen_by(self) -> list[list[int]]:
        """For each word its queries, as rows of `visible`."""
        at = {row: n for n, row in enumerate(self.query_R)}
        return [[at[row] for row in word.rows if row in at] for word in self.words]

    def uniform(self, member_SG: np.ndarray, without: Sequence[int] = ()) -> np.ndarray:
        """(L,W,G): mass on groups of keys if all visible keys, except `without`, got the same weight."""
        keys_S = ~np.isin(np.arange(len(self.key_roles)), without)
        of_layer = []
        for visible_RS in self.visible:
            seen_RS = visible_RS & keys_S
            count_R1 = np.maximum(seen_RS.sum(-1, keepdims=True), 1)
            share_RG = seen_RS @ member_SG.astype(np.float32) / count_R1
            of_layer.append([share_RG[rows].mean(0) for rows in self.seen_by])
        return np.array(of_layer)

    # Files -------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write statistics.h5, summary.json and index.html: all of them, or none."""
        from attention_atlas.look.page import page

        folder = checked_folder(folder)
        with results_in(folder) as part:
            self._write_statistics(part / FILES[0])
            write_text(part / FILES[1], json.dumps(self.summary(), ensure_ascii=False) + "\n")
            write_text(part / FILES[2], page(self))
        return folder

    def summary(self) -> dict[str, Any]:
        """summary.json, by layer (from 0, all of them) and head; shares are rounded to six digits."""
        answered = [w for w, word in enumerate(self.words) if word.part == "answer"]
        by_word = self.statistics
        over_answer = {
            name: value[:, answered].mean(1) if name == "chance" else value[:, :, answered].mean(2)
            for name, value in by_word.items()
            if answered
        }
        inside = shares_in_boxes(self) if self.things else None
        return {
            "schema": SCHEMA,
            "model": self.model,
            "prompt": None if self.is_vision else self.prompt,
            "answer": None if self.is_vision else self.answer,
            "generated": self.generated,
            "notes": self.notes,
            "attention": "cross" if self.cross else "self",
            "images": [
                {"name": p.name, "width": p.pixels.width, "height": p.pixels.height} for p in self.images
            ],
            "layers": self.layers,
            "heads": int(self.values["mass"].shape[1]),
            "layers_with_maps": self.kept,
            "image_tokens": [
                {"position": int(s), "image": int(self.image_S[s]), "box": box}
                for s, box in zip(self.image_T, _plain(self.boxes_S4[self.image_T], 2))
            ],
            "sinks": [
                {
                    "position": s,
                    "token": self.key_tokens[s],
                    "role": self.key_roles[s],
                    "received": _plain(self.received_LHS[..., s]),
                }
                for s in self.sinks
            ],
            "sink_statistics": self._sinks(),
            "answer_words": self._shares(over_answer),
            "boxes": [
                {"name": t.name, "image": t.image, "box": _plain(np.array(t.box), 2)} for t in self.things
            ],
            "boxes_predicted_by": self.predicted_by,
            "words": [
                {
                    "text": word.text,
                    "part": word.part,
                    "positions": word.positions,
                    "image": word.image if self.is_vision else None,
                    **self._shares({n: v[:, w] if n == "chance" else v[:, :, w] for n, v in by_word.items()}),
                    "strongest": self._strongest(w),
                    **({} if inside is None else {"in_boxes": _plain(np.moveaxis(inside[:, :, w], -1, 0))}),
                }
                for w, word in enumerate(self.words)
            ],
        }

    def _sinks(self) -> dict[str, Any]:
        """Sinks of each head; shares of all words, each with equal weight, with and without them."""
        found = look_sinks(self)
        by_head = found.by_head
        shares = {"with": by_head.with_LHG, "without": by_head.without_LHG}
        return {
            "tokens": [asdict(token) for token in found.tokens],
            "at_edges": found.at_edges,
            "mass": _plain(by_head.mass_LH),
            **{
                name: {group: _plain(value[..., g]) for g, group in enumerate(by_head.groups)}
                for name, value in shares.items()
            },
        }

    def _shares(self, values: dict[str, np.ndarray]) -> dict[str, Any]:
        """Arrays (L,H) or (L,) of one word, by group where there are groups."""
        return {
            name: _plain(value)
            if name == "entropy"
            else {group: _plain(value[..., g]) for g, group in enumerate(self.groups)}
            for name, value in values.items()
        }

    def _strongest(self, word: int) -> list[dict[str, Any]]:
        """The image token with the largest attention, heads averaged: in all kept layers, and in each."""
        mean_MT = self.word_values["rows"][:, :, word][..., self.image_T].mean(1)
        out = []
        for layer, value_T in [(None, mean_MT.mean(0)), *zip(self.kept, mean_MT)]:
            t = int(value_T.argmax())
            out.append(
                {"layer": layer, "position": int(self.image_T[t]), "share": round(float(value_T[t]), 6)}
            )
        return out

    def _write_statistics(self, path: Path) -> None:
        from attention_atlas.recording import Axis, StatisticsWriter

        word_S = [-1] * len(self.tokens)
        for w, word in enumerate(self.words):
            for s in word.positions if word.box < 0 else ():  # boxes overlap
                word_S[s] = w
        axes = {
            "sequence": Axis(self.tokens, self.roles, word_S),
            "words": Axis([word.text for word in self.words]),
        }
        own = "encoder_self" if self.is_vision else "decoder_self"
        keys, kind = ("images", "cross") if self.cross else ("sequence", own)
        if self.cross:
            axes[keys] = Axis(self.key_tokens, self.key_roles)
        kinds = {kind: ("sequence", keys), "words": ("words", keys)}
        of_words = {n: v.astype(np.float32) for n, v in self.word_values.items()}
        statistics = {kind: self.values, "words": of_words}
        if "rollout" in of_words:
            axes["image"] = Axis([self.tokens[s] for s in self.image_T], ["image"] * len(self.image_T))
            kinds["rollout"] = "words", "image"
            statistics["rollout"] = {"rollout": of_words.pop("rollout")}
        writer = StatisticsWriter(
            path, model=self.model, config_hash="", kinds=kinds, groups={keys: self.groups}
        )
        writer.write("look", statistics, axes)
        writer.finish()


def checked_folder(folder: str | Path) -> Path:
    """The folder of a look. Raises ConfigError if it cannot be one."""
    folder = Path(folder)
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise ConfigError(f"--out: {path}: is a file; give a folder")
            if not os.access(path, os.W_OK):
                raise ConfigError(f"--out: {path}: is not writable; give another folder")
            break
    return folder


def _plain(values: np.ndarray, digits: int = 6) -> Any:
    """Nested lists for JSON, None for NaN."""
    rounded = np.round(np.asarray(values, dtype=np.float64), digits)
    plain = rounded.astype(object)
    plain[np.isnan(rounded)] = None
    return plain.tolist()
