"""Measures of one question's attention: mass by quadrant, entropy, words, the object asked about.

All from statistics.h5 (mass by group of keys and entropy per query), so no matrix is needed. Axes: L layers,
H heads, Q queries, G groups. Every measure has a chance level, its value for attention spread evenly over all
tokens, since patches outnumber words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from attention_atlas.recording import Axis

# Function words: all other words of a question, except question words, are its content words.
_FUNCTION = """
a an the this that these those there here it its is are was were be do does did have has had of in on at to
from by with for and or any some can could would will people someone you we i ? ,
"""
_QUESTION = "what where why which who whose when how many color colour"
FUNCTION = frozenset(_FUNCTION.split())
QUESTION = frozenset(_QUESTION.split())
ROLES = {"bos": "cls", "text": "text", "eos": "sep", "special": "image_cls", "image": "image"}
QUADRANTS = (
    ("text", "text"),
    ("text", "image"),
    ("image", "text"),
    ("image", "image"),
    ("cls", "text"),
    ("cls", "image"),
)
EPSILON = 1e-9

Measured = dict[tuple[str, str], tuple[np.ndarray, float]]


@dataclass
class Question:
    """mass_LHQG and entropy_LHQ of one question, its axis, the names of G."""

    mass_LHQG: np.ndarray
    entropy_LHQ: np.ndarray
    axis: Axis
    groups: list[str]
    asked: int  # number of patches of the things asked about, 0 unknown
    norm_LHQ: np.ndarray | None = None  # size of what a head adds to the residual stream

    def queries(self, role: str) -> np.ndarray:
        """(Q,) bool: cls, text, sep, image_cls, image, question word or content words."""
        roles = [ROLES.get(r, "") for r in self.axis.roles]
        if role in ROLES.values():
            return np.array([r == role for r in roles])
        words = [t.lower() for t in self.axis.tokens]
        is_text = [r == "text" for r in roles]
        if role == "question word":
            return np.array([t and i < 3 and w in QUESTION for i, (t, w) in enumerate(zip(is_text, words))])
        return np.array([t and w not in FUNCTION | QUESTION for t, w in zip(is_text, words)])

    def mass(self, role: str, group: str) -> np.ndarray:
        """(L,H): mean over the queries of a role of their mass on a group of keys."""
        return self.mass_LHQG[:, :, self.queries(role), self.groups.index(group)].mean(-1)

    def share(self, group: str) -> float:
        """Share of the tokens that are in a group of keys."""
        return float(self.queries(group).mean())


def quadrants(item: Question) -> Measured:
    """`mass`, condition "text → image": from queries of one modality to keys of the other or the same."""
    return {
        ("mass", f"{query} → {key}"): (item.mass(query, key), item.share(key)) for query, key in QUADRANTS
    }


def words(item: Question) -> Measured:
    """`word_mass`: from question words and content words to the image and to the question's words."""
    found: Measured = {}
    for role in ("question word", "content words"):
        if item.queries(role).any():
            for key in ("text", "image"):
                found["word_mass", f"{role} → {key}"] = (item.mass(role, key), item.share(key))
    return found


def entropy(item: Question) -> Measured:
    """`entropy` of text, image and CLS queries in nats over the logarithm of the number of keys: 0..1."""
    most = np.log(len(item.axis))
    return {
        ("entropy", role): (item.entropy_LHQ[:, :, item.queries(role)].mean(-1) / most, 1.0)
        for role in ("text", "image", "cls")
    }


def asked(item: Question) -> Measured:
    """`asked`: of what goes to the image, the share on the patches of the things asked about.

    Chance is these patches' share of all patches. No values if the things are unknown.
    """
    patches = int(item.queries("image").sum())
    if not item.asked or item.asked >= patches:
        return {}
    found: Measured = {}
    for role in ("question word", "content words", "cls"):
        if item.queries(role).any():
            to_image = np.maximum(item.mass(role, "image"), EPSILON)
            found["asked", role] = (item.mass(role, "asked") / to_image, item.asked / patches)
    return found


def measure(item: Question) -> Measured:
    """All measures, and the mass measures divided by their chance (`mass_over_chance`, ...)."""
    found = {**quadrants(item), **words(item), **entropy(item), **asked(item)}
    if item.norm_LHQ is not None:
        found["norm", "all"] = (item.norm_LHQ.mean(-1), float("nan"))
    over: Measured = {
        (f"{name}_over_chance", condition): (value / chance, 1.0)
        for (name, condition), (value, chance) in found.items()
        if name not in ("entropy", "norm") and chance > 0
    }
    return found | over


def stack(measured: list[Measured]) -> Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Per measure (N,L,H) values and (N,) chances over the questions; NaN if a question has none."""
    keys = list(dict.fromkeys(key for one in measured for key in one))
    shape = next(iter(measured[0].values()))[0].shape
    out = {}
    for key in keys:
        value = np.full((len(measured), *shape), np.nan)
        chance = np.full(len(measured), np.nan)
        for n, one in enumerate(measured):
            if key in one:
                value[n], chance[n] = one[key]
        out[key] = (value, chance)
    return out
