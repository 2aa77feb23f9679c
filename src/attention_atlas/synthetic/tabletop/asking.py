"""Questions as chains of nouns and relations, with their words, programs and objects."""

from __future__ import annotations

from dataclasses import dataclass, field

from attention_atlas.synthetic.tabletop.looks import ATTRIBUTES
from attention_atlas.synthetic.tabletop.programs import Program, Value, answer_text, run
from attention_atlas.synthetic.tabletop.table import Table
from attention_atlas.synthetic.tabletop.telling import Telling, article, wording

# The question types of CLEVR, as Table 5 of the paper names them.
TYPES = ("Exist", "Count", "Query Attribute", "Compare Attribute", "Compare Integer")
WORDS = {"left": "left of", "right": "right of", "front": "in front of", "behind": "behind"}
QUERIES = {
    "size": ("What size is {0}?",),
    "color": ("What color is {0}?",),
    "material": ("What is {0} made of?", "What material is {0}?"),
    "shape": ("What shape is {0}?",),
}
COMPARED = {
    "size": ("Is {0} the same size as {1}?", "Are {0} and {1} the same size?"),
    "color": ("Is {0} the same color as {1}?", "Are {0} and {1} the same color?"),
    "material": ("Is {0} made of the same material as {1}?", "Are {0} and {1} made of the same material?"),
    "shape": ("Is {0} the same shape as {1}?", "Are {0} and {1} the same shape?"),
}
INTEGERS = {
    "equal_integer": ("Are there as many {0} as {1}?", "Is the number of {0} the same as the number of {1}?"),
    "less_than": ("Are there fewer {0} than {1}?", "Is the number of {0} less than the number of {1}?"),
    "greater_than": ("Are there more {0} than {1}?", "Is the number of {0} greater than the number of {1}?"),
}
EXISTS = ("Is there {0}?", "Are there any {0}?")
COUNTS = ("How many {0} are there?", "What number of {0} are there?")


@dataclass(frozen=True)
class Chain:
    """`nouns[0]` that is `relations[0]` of the `nouns[1]` that is ...; a noun is attributes by kind."""

    nouns: tuple[tuple[tuple[str, str], ...], ...]  # each: (kind, word) in the order of ATTRIBUTES
    relations: tuple[str, ...] = ()

    @property
    def hops(self) -> int:
        return len(self.relations)

    @property
    def shape(self) -> str:
        """The form without attribute words: "2cs" is colour and shape after 2 hops."""
        return str(self.hops) + ".".join("".join(kind[0] for kind, _ in noun) or "-" for noun in self.nouns)

    def program(self, into: Program) -> list[int]:
        """Add the steps that find the objects; returns the step number for each noun's objects."""
        found: list[int] = []
        for place in reversed(range(len(self.nouns))):
            if found:
                landmark = into.add("unique", found[0])
                at = into.add("relate", landmark, values=[self.relations[place]])
            else:
                at = into.add("scene")
            for kind, word in self.nouns[place]:
                at = into.add(f"filter_{kind}", at, values=[word])
            found.insert(0, at)
        return found

    def tell(self, out: Telling, found: list[frozenset[int]], first: str) -> None:
        """Add its words to `out`; `first`: the first determiner, "the", "a", or "many" for a plural."""
        for place, (noun, ids) in enumerate(zip(self.nouns, found, strict=True)):
            if place:
                out.say(WORDS[self.relations[place - 1]])
            many = place == 0 and first == "many"
            text = wording(dict(noun), many=many).replace("object", "thing")
            if not many:
                text = f"{article(text) if place == 0 and first == 'a' else 'the'} {text}"
            out.name(sorted(ids), text)


@dataclass(frozen=True)
class Question:
    """A question with its answer on one table. `asked`: the objects on which the answer depends."""

    type: str
    family: str
    telling: Telling
    program: Program
    answer: str
    asked: tuple[int, ...]
    form: str = ""  # what is known without the image, except for the attribute words
    outputs: tuple[Value, ...] = field(default=(), compare=False)


def ask(
    type_: str, family: str, form: str, chains: list[Chain], last: tuple[str, ...], table: Table, firsts: str
) -> Question:
    """Word and execute a question.

    form: text with {0}, {1} for the chains. last: functions applied to each chain's objects, then, for two
    chains, the comparison. firsts: determiners of the chains. Raises NotUnique as `run` does.
    """
    program, found, ends = Program(), [], []
    for chain in chains:
        steps = chain.program(program)
        found.append(steps)
        at = steps[0]
        for function in last[: len(last) - (len(chains) - 1)]:
            at = program.add(function, at)
        ends.append(at)
    if len(chains) == 2:
        program.add(last[-1], *ends)
    outputs = run(program.steps, table)
    things = [[_set(outputs[step]) for step in steps] for steps in found]
    telling, rest = Telling(), form
    for number, (chain, ids) in enumerate(zip(chains, things, strict=True)):
        before, rest = rest.split(f"{{{number}}}")
        telling.say(before.strip())
        chain.tell(telling, ids, firsts)
    telling.say(rest.strip(), glue=" " if rest.startswith(" ") else "")
    asked = sorted(set().union(*(ids[0] for ids in things)))
    shape = "|".join([form, *(chain.shape for chain in chains)])
    return Question(
        type_, family, telling, program, answer_text(outputs[-1]), tuple(asked), shape, tuple(outputs)
    )


def _set(value: Value) -> frozenset[int]:
    assert isinstance(value, frozenset)
    return value


def noun_of(words: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """A Chain's noun from attributes by kind."""
    return tuple((kind, words[kind]) for kind in ATTRIBUTES if kind in words)
