"""Facts (slot, value) that a caption states and an image can show, also read from annotated scenes.

`PartColors` (birds): a slot is a part of the body, its values are colours. `Presence` (tables): a slot is a
colour or a shape, its values are "absent" and "present".
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from attention_atlas.errors import AtlasError
from attention_atlas.language.words import words

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Box, Corpus, Example, Scene

Facts = dict[str, str]
ABSENT, PRESENT = "absent", "present"


class Reading(Protocol):
    """slots: slot -> its possible values, in order."""

    slots: dict[str, list[str]]

    def seen(self, scene: Scene) -> Facts:
        """Value of each slot that is visible in the scene."""
        ...

    def boxes(self, scene: Scene) -> dict[str, Box]:
        """Boxes of the slots, if known."""
        ...

    def stated(self, example: Example) -> Facts:
        """The value that the caption states for each slot."""
        ...


class PartColors:
    """Colours of parts, limited to parts and colours that captions mention (`Example.extra["colors"]`)."""

    def __init__(self, slots: dict[str, list[str]]) -> None:
        self.slots = slots
        self.colors = {c for values in slots.values() for c in values}

    @classmethod
    def of(cls, examples: list[Example]) -> PartColors:
        stated = [(part, color) for e in examples for part, color in e.extra["colors"].items()]
        colors = sorted({color for _, color in stated})
        return cls({part: colors for part in sorted({part for part, _ in stated})})

    def seen(self, scene: Scene) -> Facts:
        found: Facts = {}
        for item in scene.objects:
            color = next((word for word in item.attributes if word in self.colors), None)
            if item.label in self.slots and color is not None:
                found[item.label] = color
        return found

    def boxes(self, scene: Scene) -> dict[str, Box]:
        return {item.label: item.box for item in scene.objects if item.label in self.slots}

    def stated(self, example: Example) -> Facts:
        mentioned = example.extra.get("colors", {})
        return {part: color for part, color in mentioned.items() if color in self.slots.get(part, ())}


class Presence:
    """Which words of the scenes' labels and attributes are in the image. Words that apply to nearly all
    images, or to nearly none, are left out: they carry no information."""

    RARE, COMMON = 0.02, 0.8  # shares of images

    def __init__(self, slots: dict[str, list[str]]) -> None:
        self.slots = slots

    @classmethod
    def of(cls, scenes: list[Scene]) -> Presence:
        counts = Counter(word for scene in scenes for word in _words(scene))
        low, high = cls.RARE * len(scenes), cls.COMMON * len(scenes)
        return cls({word: [ABSENT, PRESENT] for word in sorted(counts) if low < counts[word] < high})

    def seen(self, scene: Scene) -> Facts:
        there = _words(scene)
        return {word: PRESENT if word in there else ABSENT for word in self.slots}

    def boxes(self, scene: Scene) -> dict[str, Box]:
        """Empty: an absent word has no position."""
        return {}

    def stated(self, example: Example) -> Facts:
        found: Facts = {}
        for phrase in example.phrases:
            if phrase.objects:
                for word in words(example.text[phrase.start : phrase.end]):
                    text = word.text.lower()
                    for slot in (text, text[:-1] if text.endswith("s") else text):
                        if slot in self.slots:
                            found[slot] = PRESENT
        return found


def _words(scene: Scene) -> set[str]:
    return {word for item in scene.objects for word in (item.label, *item.attributes)}


def reading_of(corpus: Corpus, split: str) -> PartColors | Presence:
    """The reading for a world: PartColors if captions annotate colours of parts, else Presence.

    Raises AtlasError for a corpus without annotated objects.
    """
    examples = corpus.split(split)
    scenes = [corpus.scenes[name] for name in dict.fromkeys(e.image_id for e in examples)]
    if examples and all("colors" in e.extra for e in examples):
        return PartColors.of(examples)
    if not any(s.objects for s in scenes):
        raise AtlasError(
            f"{corpus.root}: split '{split}' has no annotated objects; attributes need a synthetic world"
        )
    return Presence.of(scenes)


def reading_from(saved: dict[str, Any]) -> PartColors | Presence:
    """The reading that `saved_reading` saved."""
    kinds: dict[str, Any] = {"PartColors": PartColors, "Presence": Presence}
    return kinds[saved["kind"]](dict(zip(saved["slots"], saved["values"], strict=True)))


def saved_reading(reading: PartColors | Presence) -> dict[str, Any]:
    return {
        "kind": type(reading).__name__,
        "slots": list(reading.slots),
        "values": list(reading.slots.values()),
    }
