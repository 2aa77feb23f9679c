"""Noun phrases for the parts of a bird, with the objects they refer to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attention_atlas.data.corpus import Relation, SceneObject
from attention_atlas.synthetic import telling
from attention_atlas.synthetic.birds.palette import color_of
from attention_atlas.synthetic.telling import Chooser, article

# The first name is used in more than half of the cases.
NAMES: dict[str, tuple[str, ...]] = {
    "back": ("back",),
    "breast": ("breast", "chest"),
    "belly": ("belly", "stomach"),
    "throat": ("throat",),
    "head": ("head",),
    "crown": ("crown",),
    "beak": ("beak", "bill"),
    "wing": ("wings",),
    "tail": ("tail",),
    "legs": ("legs", "feet"),
    "eye": ("eyes",),
}
PLURAL = ("wing", "legs", "eye")
PATTERN_WORDS = {"barred": ("bars", "wingbars"), "striped": ("stripes",), "spotted": ("spots",)}


class Telling(telling.Telling):
    """A caption under construction."""

    def __init__(self) -> None:
        super().__init__()
        self.colors: dict[str, str] = {}  # part -> its stated colour


class Writer(Chooser):
    """One bird and a random generator. `plain`: use the first name of each part."""

    def __init__(
        self, objects: Sequence[SceneObject], family: str, rng: np.random.Generator, plain: bool = False
    ) -> None:
        self.by_label = {o.label: o for o in objects}
        self.family, self.rng, self.plain = family, rng, plain
        self.bird = self.by_label["bird"]
        self.around = [o for o in objects if o.label not in NAMES and o.label != "bird"]

    def part_name(self, part: str) -> str:
        names = NAMES[part]
        return names[0] if self.plain or self.chance(0.5) else self.pick(names)

    def looks(self, part: SceneObject, full: bool = False) -> list[str]:
        """Adjectives: always the colour, sometimes preceded by a shape or a pattern, or all of them."""
        color = color_of(part.attributes)
        at = part.attributes.index(color)
        shapes, patterns = part.attributes[:at], part.attributes[at + 1 :]
        keep = [w for w in shapes if full or self.chance(0.6)]
        return keep + [color] + [w for w in patterns if full or self.chance(0.5)]

    def noun(self, out: Telling, part: SceneObject, with_article: bool = True, full: bool = False) -> None:
        """ "a short orange beak", "black striped wings"."""
        name = self.part_name(part.label)
        words = " ".join([*self.looks(part, full), name])
        plural = part.label in PLURAL
        out.name([part], f"{article(words)} {words}" if with_article and not plural else words)
        out.colors[part.label] = color_of(part.attributes)

    def pair(self, out: Telling, first: SceneObject, second: SceneObject) -> None:
        """ "a white throat and belly": two parts of one colour in one phrase that refers to both."""
        color = color_of(first.attributes)
        words = f"{color} {self.part_name(first.label)} and {self.part_name(second.label)}"
        plural = first.label in PLURAL
        out.name([first, second], words if plural else f"{article(words)} {words}")
        out.colors[first.label] = out.colors[second.label] = color

    def list_of(self, out: Telling, parts: Sequence[SceneObject], full: bool = False) -> None:
        """ "a red crown, a white throat and belly and black wings"."""
        groups: list[list[SceneObject]] = []
        for part in parts:
            last = groups[-1] if groups else []
            same = len(last) == 1 and color_of(last[0].attributes) == color_of(part.attributes)
            plain = same and len(last[0].attributes) == len(part.attributes) == 1
            if plain and (last[0].label in PLURAL) == (part.label in PLURAL) and not full:
                last.append(part)
            else:
                groups.append([part])
        for number, group in enumerate(groups):
            if number:
                out.say("and" if number == len(groups) - 1 else ",")
            if len(group) == 2:
                self.pair(out, *group)
            else:
                self.noun(out, group[0], full=full)

    def is_colored(self, out: Telling, part: SceneObject, start: str) -> None:
        """ "the crown is red", "its wings are black with white bars"."""
        name = self.part_name(part.label)
        plural = part.label in PLURAL
        out.name([part], f"{start} {name}")
        color = color_of(part.attributes)
        out.say(f"{'are' if plural else 'is'} {color}")
        out.colors[part.label] = color
        patterns = [w for w in part.attributes if w in PATTERN_WORDS]
        if patterns and self.chance(0.5):
            out.say(f"with {self.pick(PATTERN_WORDS[patterns[0]])}")

    def parts(self, count: int, least: int) -> list[SceneObject]:
        """Up to `count` parts of at least `least` pixels, with larger ones more likely.

        Weighted by the square root of the area, so that throats and beaks also occur; eyes are rare.
        """
        options = [o for o in self.by_label.values() if o.label in NAMES and o.area >= least]
        if not options:
            return []
        weights = np.array([o.area**0.5 * (0.4 if o.label in ("eye", "back") else 1.0) for o in options])
        count = min(count, len(options))
        drawn = self.rng.choice(len(options), size=count, replace=False, p=weights / weights.sum())
        return [options[int(i)] for i in drawn]

    def adjectives(self, p: float = 0.5) -> list[str]:
        """Of the whole bird: size and main colour, each with probability `p`."""
        return [w for w in self.bird.attributes if w != "flying" and self.chance(p)]

    def name_bird(self, out: Telling, start: str, p: float = 0.3) -> tuple[int, int]:
        """ "this small bird", "a red songbird". `start` is this, the, a or ""."""
        noun = self.family if self.chance(0.12) else "bird"
        words = " ".join([*self.adjectives(p), noun])
        return out.name([self.bird], f"{article(words) if start == 'a' else start} {words}".strip())

    def where(self, out: Telling, bird: tuple[int, int]) -> bool:
        """ "perched on a brown branch", "flying in the sky"."""
        if not self.around:
            return False
        sky = next((o for o in self.around if o.label == "sky"), None)
        on = next((o for o in self.around if o.label not in ("sky", "leaves")), None)
        if "flying" in self.bird.attributes:
            if sky is None:
                return False
            out.say("flying")
            relation, landmark, thing = out.say("in"), out.name([sky], "the sky"), sky
        elif on is None:
            return False
        else:
            verb, preposition, start = {
                "branch": ("perched", "on", "a"),
                "rock": ("sitting", "on", "a"),
                "water": ("swimming", "in", "the"),
            }.get(on.label, ("standing", "on", "the"))
            out.say(verb)
            relation = out.say(preposition)
            color = [*on.attributes[:1]] if start == "a" and self.chance(0.5) else []
            words = " ".join([*color, on.label])
            landmark = out.name([on], f"{article(words) if start == 'a' else start} {words}")
            thing = on
        out.relations.append(Relation(bird, relation, landmark, "region", [self.bird.id], [thing.id]))
        return True
