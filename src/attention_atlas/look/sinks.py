"""The sinks of a look: what they are, where they lie, and what the groups of tokens get without them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attention_atlas.capture.sinks import LEAST, Place, Sinks, find_sinks, places_of

if TYPE_CHECKING:
    from attention_atlas.look.result import Look

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
SPACES = str.maketrans(dict.fromkeys("▁ĠĊĉ", " "))  # of SentencePiece and of byte-level BPE
SHOWN = 10


@dataclass(frozen=True)
class SinkToken:
    """One position that is a sink of some head. sort: first, special, delimiter (a text token without a
    letter or digit), text, or its role. heads: share of heads in which it is a sink; mass: share of all
    attention that these heads give it, averaged over all heads. place: of an image token, where known."""

    position: int
    token: str
    sort: str
    heads: float
    mass: float
    place: Place | None


@dataclass(frozen=True)
class LookSinks:
    """by_head: see `capture.sinks.Sinks`; its queries are those of the words, each word with equal weight.
    tokens: those that take most first. at_edges: share of the image tokens (sinks or not) that lie at an
    edge, the chance level for `edge`; None without places."""

    layers: list[int]
    by_head: Sinks
    tokens: list[SinkToken]
    at_edges: float | None

    def text(self) -> str:
        """A table of the tokens, and one of the layers, heads averaged."""
        rows = [["position", "token", "sort", "heads", "mass", "row", "column", "edge", "detail"]]
        for token in self.tokens[:SHOWN]:
            place = token.place
            where = ["-"] * 4
            if place is not None:
                detail = "-" if place.detail is None else f"{place.detail:.0%}"
                where = [f"{place.row + 1} of {place.rows}", f"{place.column + 1} of {place.columns}"]
                where += ["yes" if place.edge else "no", detail]
            numbers = [f"{token.heads:.1%}", f"{token.mass:.1%}"]
            rows.append([str(token.position), repr(token.token), token.sort, *numbers, *where])
        by_head = self.by_head
        layers = [["layer", "on sinks", *(f"{g} (without)" for g in by_head.groups)]]
        for n, layer in enumerate(self.layers):
            kept = [f"{by_head.with_LHG[n, :, g].mean():.1%}" for g in range(len(by_head.groups))]
            left = [_mean(by_head.without_LHG[n, :, g]) for g in range(len(by_head.groups))]
            pairs = [f"{a} ({b})" for a, b in zip(kept, left)]
            layers.append([str(layer), f"{by_head.mass_LH[n].mean():.1%}", *pairs])
        found = _aligned(rows) if self.tokens else ["no sinks"]
        if len(self.tokens) > SHOWN:
            found.append(f"and {len(self.tokens) - SHOWN} more in summary.json")
        if self.at_edges is not None:
            found.append(f"{self.at_edges:.0%} of all image tokens lie at an edge")
        return "\n".join([*found, "", *_aligned(layers)])


def look_sinks(look: Look) -> LookSinks:
    """The sinks among the positions of a look, by the attention of its words."""
    weights_R = np.zeros(len(look.query_R))
    for rows in look.seen_by:
        for row in rows:
            weights_R[row] += 1 / len(rows) / len(look.words)
    # A vision model's queries see one image each, and all of it.
    least = 0.0 if look.is_vision else LEAST
    visible = np.stack(look.visible)
    by_head = find_sinks(look.received_LHS, visible, look.key_roles, least=least, weights_Q=weights_R)
    pixels = [np.asarray(image.pixels) for image in look.images]
    places = places_of(look.boxes_S4, look.image_S, pixels)
    taken_K = (by_head.taken_LHK * by_head.is_sink_LHK).mean((0, 1))
    tokens = [
        SinkToken(
            position=k,
            token=look.key_tokens[k],
            sort=look.key_roles[k] if look.cross else _sort(k, look.tokens[k], look.roles[k]),
            heads=float(by_head.heads_K[k]),
            mass=float(taken_K[k]),
            place=places.get(k),
        )
        for k in by_head.positions
    ]
    at_edges = float(np.mean([place.edge for place in places.values()])) if places else None
    return LookSinks(look.layers, by_head, tokens, at_edges)


def _sort(position: int, token: str, role: str) -> str:
    if position == 0 and role != "class":
        return "first"
    if role != "text":
        return "special" if role in ("bos", "eos", "special") else role
    spelled = BYTE.sub(lambda match: chr(int(match[1], 16)), token).translate(SPACES)
    return "text" if any(c.isalnum() for c in spelled) else "delimiter"


def _mean(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return f"{known.mean():.1%}" if len(known) else "-"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
