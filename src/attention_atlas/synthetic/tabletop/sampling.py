"""Random questions about a table, as in CLEVR's templates: well formed, and with every hop necessary."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from attention_atlas.synthetic.tabletop.asking import (
    COMPARED,
    COUNTS,
    EXISTS,
    INTEGERS,
    QUERIES,
    Chain,
    Question,
    ask,
    noun_of,
)
from attention_atlas.synthetic.tabletop.looks import ATTRIBUTES
from attention_atlas.synthetic.tabletop.programs import NotUnique
from attention_atlas.synthetic.tabletop.table import RELATIONS, Item, Table
from attention_atlas.synthetic.tabletop.telling import matching

# How often a chain has 0, 1, 2, 3 relations; the second chain of a comparison has none.
_CHAIN, _PAIR = (0.42, 0.36, 0.15, 0.07), (0.65, 0.35, 0.0, 0.0)
HOPS = {
    "Exist": _CHAIN,
    "Count": _CHAIN,
    "Query Attribute": _CHAIN,
    "Compare Attribute": _PAIR,
    "Compare Integer": _PAIR,
}
FIRST_NOUN = (0.15, 0.45, 0.3, 0.1)  # 0, 1, 2, 3 attributes
KINDS = tuple(ATTRIBUTES)


class Sampler:
    """Questions about one table."""

    def __init__(self, table: Table, rng: Random) -> None:
        self.table, self.rng = table, rng

    def hops(self, type_: str) -> int:
        """Number of relations of the next question of this type."""
        (number,) = self.rng.choices(range(4), weights=HOPS[type_])
        return number

    def of_type(self, type_: str, hops: int) -> Question | None:
        """A question of this type; None if this draw fails."""
        try:
            return _MAKERS[type_](self, hops)
        except NotUnique:
            return None

    def pick(self, options: tuple[str, ...]) -> str:
        return self.rng.choice(options)

    def _kinds(self, number: int, without: str = "") -> list[str]:
        free = [k for k in KINDS if k != without]
        return sorted(self.rng.sample(free, min(number, len(free))), key=KINDS.index)

    def _one(self) -> Item:
        return self.rng.choice(self.table.items)

    def _noun(self, number: int, without: str = "", like: Item | None = None) -> dict[str, str]:
        """Attributes of one shape, or a mixture from the shapes here and, rarely, arbitrary words."""
        words = {}
        mixed = self.rng.random() < 0.5
        for kind in self._kinds(number, without):
            item = like or self._one()
            words[kind] = getattr(item, kind)
            if like is None and not mixed:
                like = item
            if like is None and self.rng.random() < 0.15:
                words[kind] = self.pick(ATTRIBUTES[kind])
        return words

    def _named(self, item: Item, among: list[Item], without: str = "") -> dict[str, str]:
        """Minimal attributes, in a random order, that distinguish a shape from others."""
        words: dict[str, str] = {}
        kinds = [k for k in KINDS if k != without]
        self.rng.shuffle(kinds)
        for kind in kinds:
            words[kind] = getattr(item, kind)
            among = [i for i in among if getattr(i, kind) == words[kind]]
            if len(among) == 1:
                break
        return words

    def _reached(self, hops: int) -> tuple[list[dict[str, str]], list[str], list[Item]] | None:
        """Nouns and relations except the first noun, and the objects that they lead to."""
        if hops == 0:
            return [], [], list(self.table.items)
        if len(self.table.items) <= hops:
            return None
        here, *others = self.rng.sample(self.table.items, hops)
        nouns, relations = [self._named(here, list(self.table.items))], [self.pick(RELATIONS)]
        for following in others:
            reached = self.table.related(here, relations[0])
            if following not in reached:
                return None
            words = self._named(following, reached)
            if len(matching(self.table, words)) == 1:
                return None  # the relation would be unnecessary
            nouns.insert(0, words)
            relations.insert(0, self.pick(RELATIONS))
            here = following
        return nouns, relations, self.table.related(here, relations[0])

    def group(self, hops: int, least: int = 0) -> Chain | None:
        """A chain with any number of objects; if it has a relation and no object, its first noun exists
        elsewhere."""
        reached = self._reached(hops)
        if reached is None:
            return None
        nouns, relations, _ = reached
        (number,) = self.rng.choices(range(4), weights=FIRST_NOUN)
        words = self._noun(max(number, least))
        if hops and not matching(self.table, words):
            return None
        return Chain(tuple(noun_of(n) for n in [words, *nouns]), tuple(relations))

    def single(self, hops: int, without: str = "") -> Chain | None:
        """A chain that identifies one object without the attribute `without`, but only thanks to the last
        relation."""
        reached = self._reached(hops)
        if reached is None or not reached[2]:
            return None
        nouns, relations, things = reached
        item = self.rng.choice(things)
        words = self._named(item, things, without)
        if hops and len(matching(self.table, words)) == 1:
            return None
        return Chain(tuple(noun_of(n) for n in [words, *nouns]), tuple(relations))

    def exist(self, hops: int) -> Question | None:
        form = self.pick(EXISTS)
        chain = self.group(hops, least=2 if hops == 0 else 1)
        if chain is None:
            return None
        firsts = "many" if "any" in form else "a"
        return ask("Exist", f"exist_{hops}_hop", form, [chain], ("exist",), self.table, firsts)

    def count(self, hops: int) -> Question | None:
        form, chain = self.pick(COUNTS), self.group(hops)
        if chain is None:
            return None
        return ask("Count", f"count_{hops}_hop", form, [chain], ("count",), self.table, "many")

    def query(self, hops: int) -> Question | None:
        kind = self.pick(KINDS)
        chain = self.single(hops, without=kind)
        if chain is None:
            return None
        form, last = self.pick(QUERIES[kind]), ("unique", f"query_{kind}")
        return ask("Query Attribute", f"query_{kind}_{hops}_hop", form, [chain], last, self.table, "the")

    def compare(self, hops: int) -> Question | None:
        kind = self.pick(KINDS)
        chains = [self.single(hops, without=kind), self.single(0, without=kind)]
        first, second = chains
        if first is None or second is None or first.nouns[0] == second.nouns[0]:
            return None
        last = ("unique", f"query_{kind}", f"equal_{kind}")
        form, family = self.pick(COMPARED[kind]), f"compare_{kind}_{hops}_hop"
        asked = ask("Compare Attribute", family, form, [first, second], last, self.table, "the")
        return asked if len(asked.asked) == 2 else None

    def integer(self, hops: int) -> Question | None:
        function = self.pick(tuple(INTEGERS))
        first, second = self.group(hops, least=1), self.group(0, least=1)
        if first is None or second is None:
            return None
        one, other = set(first.nouns[0]), set(second.nouns[0])
        if one <= other or other <= one:  # there are never more red cubes than cubes: trivial
            return None
        form, family = self.pick(INTEGERS[function]), f"{function}_{hops}_hop"
        last = ("count", function)
        return ask("Compare Integer", family, form, [first, second], last, self.table, "many")


_MAKERS: dict[str, Callable[[Sampler, int], Question | None]] = {
    "Exist": Sampler.exist,
    "Count": Sampler.count,
    "Query Attribute": Sampler.query,
    "Compare Attribute": Sampler.compare,
    "Compare Integer": Sampler.integer,
}
