"""Questions about the words on signs, with ten answers each: most are answered by copying the text, some by a
word about the sign (its colour or side), so that a model has to choose.

People are simulated as in `questions.py`; their errors are misspellings and words of another sign.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import Example, Phrase, Scene, SceneObject, write_examples
from attention_atlas.errors import AtlasError, ConfigError, did_you_mean
from attention_atlas.measures.vqa_normalise import normalise
from attention_atlas.synthetic.rooms.asking import Asked
from attention_atlas.synthetic.rooms.questions import ten_answers
from attention_atlas.synthetic.rooms.sign_words import TEXT_HIDDEN

COLOURS = ("white", "black", "red", "green", "blue", "yellow")
SHARES = {
    "only sign": 0.1,
    "color": 0.3,
    "place": 0.25,
    "size": 0.05,
    "above thing": 0.12,
    "beside sign": 0.03,
    "what color": 0.1,
    "which side": 0.05,
}
VOCABULARY = ("what color", "which side")  # types not answered by copying
MARGIN = 0.1  # minimum lead of the leftmost, highest, ... sign, in widths or heights of the image
LARGER = 1.3  # minimum ratio of the largest sign's area to the next
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SAYS = ("what does {} say?", "what is written on {}?")
Found = tuple[Asked, SceneObject]


def sign_questions(scene: Scene, rng: np.random.Generator) -> Iterator[Found]:
    """All questions with a unique answer in this scene, with their signs.

    A named object must be the only one of its name; partly hidden signs count as signs but have no questions.
    """
    written = [o for o in scene.objects if o.text]
    clear = [o for o in written if o.occlusion <= TEXT_HIDDEN]

    def copied(group: str, sign: SceneObject, phrase: str, also: Sequence[SceneObject] = ()) -> Found:
        text = str(rng.choice(SAYS)).format(phrase)
        others = [o.text.lower() for o in written if o is not sign]
        wrong = [misspelt(sign.text.lower(), rng) for _ in range(3)] + others[:2]
        objects = (sign.id, *(o.id for o in also))
        return Asked(text, sign.text.lower(), group, phrase, objects, tuple(wrong), hard=1.0), sign

    if len(written) == 1 and clear:
        yield copied("only sign", clear[0], "the sign")
    several = len(written) > 1
    for sign in clear:
        colour = _colour(sign)
        alike = [o for o in written if _colour(o) == colour]
        if colour and len(alike) == 1 and several:
            yield copied("color", sign, f"the {colour} sign")
            for word, other in _neighbours(sign, written):
                if other in clear:
                    yield copied("beside sign", other, f"the sign {word} the {colour} one", [sign])
        if several:
            for word in _places(sign, written, scene):
                yield copied("place", sign, f"the {word} sign")
            for word in _sizes(sign, written):
                yield copied("size", sign, f"the {word} sign")
        if sum(o.text == sign.text for o in written) == 1:
            about = f'the sign that says "{sign.text.lower()}"'
            others = tuple(c for c in COLOURS if c != colour)
            if colour:
                asked = Asked(
                    f"what color is {about}?", colour, "what color", about, (sign.id,), others, hard=0.6
                )
                yield asked, sign
            off = (sign.box[0] + sign.box[2]) / 2 / scene.width - 0.5
            if abs(off) > MARGIN:
                side, other_side = ("left", "right") if off < 0 else ("right", "left")
                text = f"on which side of the picture is {about}?"
                yield (Asked(text, side, "which side", about, (sign.id,), (other_side,), hard=0.6), sign)
    for thing, sign in _above_things(scene, written):
        if sign in clear:
            yield copied("above thing", sign, f"the sign above the {thing.label}", [thing])


def misspelt(text: str, rng: np.random.Generator) -> str:
    """The text with one letter dropped, doubled, swapped with the next, or replaced."""
    at = [i for i, c in enumerate(text) if c != " "]
    i = at[int(rng.integers(len(at)))]
    way = int(rng.integers(4))
    if way == 0 and len(at) > 2:
        return (text[:i] + text[i + 1 :]).strip()
    if way == 1:
        return text[:i] + text[i] + text[i:]
    if way == 2 and i + 1 < len(text) and " " not in text[i : i + 2] and text[i] != text[i + 1]:
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    letter = LETTERS[(LETTERS.find(text[i]) + 1 + int(rng.integers(25))) % 26]
    return text[:i] + letter + text[i + 1 :]


def _colour(sign: SceneObject) -> str:
    return next((a for a in sign.attributes if a in COLOURS), "")


def _places(sign: SceneObject, written: Sequence[SceneObject], scene: Scene) -> Iterator[str]:
    for axis, length, low, high in (
        (0, scene.width, "leftmost", "rightmost"),
        (1, scene.height, "top", "bottom"),
    ):
        mine = (sign.box[axis] + sign.box[axis + 2]) / 2
        others = [(o.box[axis] + o.box[axis + 2]) / 2 for o in written if o is not sign]
        if mine < min(others) - MARGIN * length:
            yield low
        if mine > max(others) + MARGIN * length:
            yield high


def _sizes(sign: SceneObject, written: Sequence[SceneObject]) -> Iterator[str]:
    others = [o.area for o in written if o is not sign]
    if sign.area > LARGER * max(others):
        yield "largest"
    if sign.area * LARGER < min(others):
        yield "smallest"


def _overlap(a: SceneObject, b: SceneObject, axis: int) -> float:
    """Overlap along an axis, relative to the shorter of the two."""
    shared = min(a.box[axis + 2], b.box[axis + 2]) - max(a.box[axis], b.box[axis])
    return shared / min(a.box[axis + 2] - a.box[axis], b.box[axis + 2] - b.box[axis])


def _neighbours(sign: SceneObject, written: Sequence[SceneObject]) -> Iterator[tuple[str, SceneObject]]:
    """(above, sign) or (below, sign) if exactly one other sign hangs there."""
    column = [o for o in written if o is not sign and _overlap(o, sign, 0) > 0.3]
    over = [o for o in column if _overlap(o, sign, 1) < 0.3 and o.box[1] < sign.box[1]]
    under = [o for o in column if _overlap(o, sign, 1) < 0.3 and o.box[1] > sign.box[1]]
    for word, found in (("above", over), ("below", under)):
        if len(found) == 1:
            yield word, found[0]


def _above_things(scene: Scene, written: Sequence[SceneObject]) -> Iterator[tuple[SceneObject, SceneObject]]:
    """(object, sign) if the object is the only one of its name and exactly one sign hangs above it."""
    names = [o.label for o in scene.objects]
    for thing in scene.objects:
        if thing.text or thing.label in ("wall", "floor", "ceiling", "sign", "window", "rug", "ceiling lamp"):
            continue
        if names.count(thing.label) > 1 or thing.area < 0.008 * scene.width * scene.height:
            continue
        over = [o for o in written if o.box[3] <= thing.box[1] + 4 and _overlap(o, thing, 0) > 0]
        if len(over) == 1 and _overlap(over[0], thing, 0) > 0.6:
            yield thing, over[0]


class SignQuestions:
    """The annotator of data=rooms_signs: at most `per_scene` questions for each image with signs.

    error: fraction of wrong human answers. shares: relative frequency of each type where it is possible.
    """

    def __init__(
        self, per_scene: int = 8, error: float = 0.12, shares: Mapping[str, float] | None = None
    ) -> None:
        if per_scene < 1 or not 0 <= error < 0.5:
            raise ConfigError("SignQuestions: per_scene must be at least 1 and error within 0..0.5")
        self.per_scene, self.error = per_scene, error
        self.shares = dict(SHARES if shares is None else shares)
        for name in self.shares:
            if name not in SHARES:
                raise ConfigError(f"SignQuestions: shares: '{name}'{did_you_mean(name, SHARES)}")

    def of_scene(self, scene: Scene, rng: np.random.Generator, known: set[str]) -> list[Example]:
        """Questions about one scene; `known` are the words on signs of training images."""
        found = [f for f in sign_questions(scene, rng) if self.shares.get(f[0].group)]
        if not found:
            return []
        # Types by their shares, then a question of the type, so that frequently possible types do not
        # dominate.
        counts = Counter(asked.group for asked, _ in found)
        weights = np.array([self.shares[a.group] / counts[a.group] for a, _ in found])
        size = min(self.per_scene, len(found))
        chosen = rng.choice(len(found), size=size, replace=False, p=weights / weights.sum())
        return [self._example(scene, n, found[i], rng, known) for n, i in enumerate(chosen.tolist())]

    def _example(
        self,
        scene: Scene,
        number: int,
        found: tuple[Asked, SceneObject],
        rng: np.random.Generator,
        known: set[str],
    ) -> Example:
        asked, sign = found
        start = asked.text.index(asked.phrase)
        phrase = Phrase(start, start + len(asked.phrase), [sign.id], "object")
        extra = {
            "type": asked.group,
            "answer": normalise(asked.answer),
            "from": "vocabulary" if asked.group in VOCABULARY else "sign",
            "sign": sign.id,
            "words": "seen" if set(sign.text.lower().split()) <= known else "new",
            "length": len(asked.answer.split()),
        }
        answers = ten_answers(asked, rng, self.error)
        text = asked.text[0].upper() + asked.text[1:]
        return Example(f"{scene.image_id}_t{number:02d}", scene.image_id, text, [phrase], [], answers, extra)

    def __call__(self, corpus_root: Path, out: Path, seed: int) -> None:
        """Write the questions about all images with signs under `corpus_root` to `out`."""
        from attention_atlas.data.corpus import read_corpus

        scenes = read_corpus(corpus_root).scenes
        known = {
            word
            for scene in scenes.values()
            if scene.split in ("train", "extra")
            for o in scene.objects
            for word in o.text.lower().split()
        }
        examples: list[Example] = []
        for number, (_, scene) in enumerate(sorted(scenes.items())):
            examples += self.of_scene(scene, np.random.default_rng([seed, number]), known)
        if not examples:
            raise AtlasError(f"{corpus_root}: no image has a sign that can be read; render more rooms")
        write_examples(out, examples)
