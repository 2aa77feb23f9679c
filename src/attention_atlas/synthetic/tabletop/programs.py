"""Functional programs over a table, and their executor.

Functions and file format are CLEVR's (Johnson et al. 2017, section 3 and appendix A): a program is a list of
steps, each with a function, the steps that are its inputs, and its word arguments.

    scene -> all                     filter_<attribute>[word]: set -> set      unique: set of one -> thing
    relate[relation]: thing -> set   count: set -> number                      exist: set -> yes | no
    query_<attribute>: thing -> word equal_<attribute>: word, word -> yes | no
    equal_integer, less_than, greater_than: number, number -> yes | no
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from attention_atlas.errors import AtlasError
from attention_atlas.synthetic.tabletop.looks import ATTRIBUTES
from attention_atlas.synthetic.tabletop.table import RELATIONS, Item, Table

Value = frozenset[int] | int | str | bool


class NotUnique(AtlasError):
    """The program says "the ..." where no object or several match."""


@dataclass(frozen=True)
class Step:
    """`function` of the outputs of earlier steps (`inputs`, by number) and of words (`value_inputs`)."""

    function: str
    inputs: tuple[int, ...] = ()
    value_inputs: tuple[str, ...] = ()


@dataclass
class Program:
    """A program under construction; methods that add steps return the number of the last one."""

    steps: list[Step] = field(default_factory=list)

    def add(self, function: str, *inputs: int, values: Sequence[str] = ()) -> int:
        self.steps.append(Step(function, inputs, tuple(values)))
        return len(self.steps) - 1

    def rows(self) -> list[dict[str, Any]]:
        """As in CLEVR's questions JSON."""
        rows = [asdict(s) for s in self.steps]
        return [{k: list(v) if isinstance(v, tuple) else v for k, v in row.items()} for row in rows]


def program_from(rows: Sequence[dict[str, Any]]) -> list[Step]:
    """Steps from their rows in a questions file. Raises AtlasError for an invalid row."""
    steps = []
    for number, row in enumerate(rows):
        try:
            steps.append(Step(row["function"], tuple(row["inputs"]), tuple(row["value_inputs"])))
        except (KeyError, TypeError) as error:
            raise AtlasError(f"program: step {number}: not a step ({error}); write the layer again") from None
    return steps


def run(steps: Sequence[Step], table: Table) -> list[Value]:
    """The output of every step; the last one is the answer.

    Sets are frozensets of item ids, a thing is the set of its id. Raises NotUnique where `unique` gets no or
    several things; AtlasError for an unknown function or word, or a step that reads a later one.
    """
    outputs: list[Value] = []
    for number, step in enumerate(steps):
        if not all(0 <= i < number for i in step.inputs):
            raise AtlasError(f"program: step {number}: inputs {list(step.inputs)} are not before it")
        try:
            outputs.append(_apply(step, [outputs[i] for i in step.inputs], table))
        except (IndexError, ValueError, TypeError, KeyError):
            raise AtlasError(
                f"program: step {number}: {step.function}{list(step.value_inputs)} of {len(step.inputs)}"
                " inputs cannot be executed; see the list of functions in synthetic/tabletop/programs.py"
            ) from None
    return outputs


def _apply(step: Step, inputs: list[Any], table: Table) -> Value:
    name, _, attribute = step.function.partition("_")
    if step.function == "scene":
        return frozenset(i.id for i in table.items)
    if step.function == "unique":
        (things,) = inputs
        if len(things) != 1:
            raise NotUnique(f"program: unique: {len(things)} objects; the question must identify one")
        return things  # type: ignore[no-any-return]
    if step.function == "relate":
        (relation,) = step.value_inputs
        RELATIONS.index(relation)
        return frozenset(i.id for i in table.related(_only(inputs, table), relation))
    if step.function == "count":
        (things,) = inputs
        return len(things)
    if step.function == "exist":
        (things,) = inputs
        return bool(things)
    if step.function in ("equal_integer", "less_than", "greater_than"):
        first, second = (int(i) for i in inputs)
        return {
            "equal_integer": first == second,
            "less_than": first < second,
            "greater_than": first > second,
        }[step.function]
    words = ATTRIBUTES[attribute]
    if name == "filter":
        (things,), (word,) = inputs, step.value_inputs
        words.index(word)
        return frozenset(i for i in things if getattr(table.item(i), attribute) == word)
    if name == "query":
        return str(getattr(_only(inputs, table), attribute))
    if name == "equal":
        first, second = inputs
        return bool(first == second)
    raise KeyError(step.function)


def _only(inputs: list[Any], table: Table) -> Item:
    ((item_id,),) = inputs
    return table.item(item_id)


def answer_text(answer: Value) -> str:
    """An answer as CLEVR writes it: yes, no, a number in digits, or an attribute word."""
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    if isinstance(answer, frozenset):
        raise AtlasError("program: ends in a set of objects; end it with count, exist, query or a comparison")
    return str(answer)
