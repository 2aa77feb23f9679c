"""Captions of birds in the manner of CUB-200-2011 (Reed et al., CVPR 2016): "this bird has a white throat and
a short orange beak". Each names the colours of two to four parts, with gold phrases -> parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import SceneObject, write_examples
from attention_atlas.errors import AtlasError
from attention_atlas.language.words import words
from attention_atlas.synthetic.birds.phrases import Telling, Writer
from attention_atlas.synthetic.telling import Annotator, numbered

TRIES = 60
NAMED_SHARE = 0.002  # fraction of the image's pixels; captions do not mention smaller parts


def this_has(w: Writer, out: Telling, parts: Sequence[SceneObject]) -> None:
    """This bird has a white throat and a short orange beak."""
    w.name_bird(out, w.pick(("this", "this", "the", "a")), 0.15)
    out.say("has")
    w.list_of(out, parts)


def this_is(w: Writer, out: Telling, parts: Sequence[SceneObject]) -> None:
    """This is a small red bird with black wings and a long tail."""
    out.say("this is")
    w.name_bird(out, "a", 0.8)
    out.say("with")
    w.list_of(out, parts)


def bird_with(w: Writer, out: Telling, parts: Sequence[SceneObject]) -> None:
    """A small bird with a yellow belly and gray wings."""
    w.name_bird(out, "a", 0.6)
    out.say("with")
    w.list_of(out, parts)


def somewhere(w: Writer, out: Telling, parts: Sequence[SceneObject]) -> None:
    """A bird perched on a branch with a red crown and black wings."""
    bird = w.name_bird(out, "a", 0.4)
    w.where(out, bird)
    out.say("with")
    w.list_of(out, parts)


def each_is(w: Writer, out: Telling, parts: Sequence[SceneObject]) -> None:
    """The crown of this bird is red, the breast is white and the wings are black."""
    for number, part in enumerate(parts):
        if number:
            out.say("and" if number == len(parts) - 1 else ",")
        w.is_colored(out, part, "the" if number == 0 or w.chance(0.6) else "its")


def has_and_is(w: Writer, out: Telling, parts: Sequence[SceneObject]) -> None:
    """The bird has a white breast, and its wings are black with bars."""
    w.name_bird(out, w.pick(("this", "the")), 0.15)
    out.say("has")
    w.list_of(out, parts[:-1])
    out.say(w.pick((", and", "and", ", while")))
    w.is_colored(out, parts[-1], "its")


WAYS: tuple[tuple[Callable[[Writer, Telling, Sequence[SceneObject]], None], float], ...] = (
    (this_has, 5.0),
    (this_is, 2.0),
    (bird_with, 2.5),
    (somewhere, 1.2),
    (each_is, 1.2),
    (has_and_is, 1.5),
)


def caption(writer: Writer, least: int, max_words: int) -> Telling:
    """One caption of at most `max_words` words about parts of at least `least` pixels.

    Raises AtlasError if too little of the bird is visible.
    """
    weights = np.array([weight for _, weight in WAYS])
    for _ in range(TRIES):
        way = WAYS[int(writer.rng.choice(len(WAYS), p=weights / weights.sum()))][0]
        parts = writer.parts(int(writer.rng.choice([2, 3, 4], p=[0.5, 0.35, 0.15])), least)
        if len(parts) < 2:
            break
        out = Telling()
        way(writer, out, parts)
        if len(words(out.text)) <= max_words:
            return out
    raise AtlasError(
        f"captions: a {writer.family} is too little visible for a caption of {max_words} words;"
        " raise max_words or the world's least_parts"
    )


def account(objects: Sequence[SceneObject], family: str) -> Telling:
    """A full description of a bird: its place and every visible part with shape, colour and pattern."""
    writer = Writer(objects, family, np.random.default_rng(0), plain=True)
    out = Telling()
    attributes = [a for a in writer.bird.attributes if a != "flying"]
    bird = out.name([writer.bird], " ".join(["the", *attributes, family]))
    out.say("is")
    if not writer.where(out, bird):
        out.say("alone")
    parts = [o for o in objects if o.label in writer.by_label and o not in (writer.bird, *writer.around)]
    out.say("and has")
    writer.list_of(out, parts, full=True)
    return out


class Captions(Annotator):
    """The annotator of data=birds_captions: `per_scene` different captions for each bird.

    `Example.extra["colors"]`: {part: colour} of the caption.
    """

    shortest, tries = 12, TRIES

    def __init__(self, per_scene: int = 5, max_words: int = 20) -> None:
        super().__init__(per_scene, max_words)

    def of_bird(
        self, objects: Sequence[SceneObject], family: str, pixels: int, rng: np.random.Generator
    ) -> list[Telling]:
        """`pixels`: of the whole image."""
        writer = Writer(objects, family, rng)
        least = max(1, round(NAMED_SHARE * pixels))
        return self.different(lambda: caption(writer, least, self.max_words))

    def __call__(self, corpus_root: Path, out: Path, seed: int) -> None:
        """Write the captions of every scene under `corpus_root` to `out` (Examples, one per line)."""
        from attention_atlas.data.corpus import read_corpus

        examples = []
        for number, (image_id, scene) in enumerate(read_corpus(corpus_root).scenes.items()):
            if not any(o.label == "bird" for o in scene.objects):
                raise AtlasError(
                    f"{corpus_root}/scenes.jsonl: {image_id}: objects: no bird; give the root of data=birds"
                )
            rng = np.random.default_rng(np.random.SeedSequence([seed, number, 7]))
            pixels = scene.width * scene.height
            captions = self.of_bird(scene.objects, scene.category, pixels, rng)
            for example, caption in zip(numbered(image_id, captions), captions):
                example.extra["colors"] = caption.colors
                examples.append(example)
        write_examples(out, examples)
