"""CLEVR's functional programs, executed on its scenes (Johnson et al. 2017, section 3 and appendix A).

A program is a list of {"function", "inputs": [earlier steps], "value_inputs": [words]}. Execution returns the
answer and the objects it depends on: those that reach the last step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attention_atlas.errors import AtlasError

ATTRIBUTES = ("size", "color", "material", "shape")
COMPARE_INTEGER = ("equal_integer", "less_than", "greater_than")


def question_type(function: str) -> str:
    """The program's type (one of the paper's five) by its last function, or by a template function that joins
    several steps (`filter_count`, `relate_filter_exist`). Raises AtlasError for any other."""
    name = function.rpartition("filter_")[2]
    if name in ("exist", "count"):
        return name.capitalize()
    if name in COMPARE_INTEGER:
        return "Compare Integer"
    kind, _, attribute = name.partition("_")
    if kind == "query" and attribute in ATTRIBUTES:
        return "Query Attribute"
    if kind == "equal" and attribute in ATTRIBUTES:
        return "Compare Attribute"
    raise AtlasError(
        f"CLEVR: function: no question ends in '{function}'; known: exist, count, query_<attribute>, "
        f"equal_<attribute>, {', '.join(COMPARE_INTEGER)}"
    )


def run(
    program: Sequence[Mapping[str, Any]],
    objects: Sequence[Mapping[str, str]],
    relationships: Mapping[str, Sequence[Sequence[int]]],
) -> tuple[str, list[int]]:
    """(answer as CLEVR spells it, sorted indices of the objects that it depends on).

    objects: each with size, color, material, shape. relationships: relation -> for each object the objects
    in that relation to it, as in the scenes files. Raises AtlasError for a step that cannot be executed.
    """
    outputs: list[Any] = []
    behind: list[set[int]] = []  # per step: the objects that its output is about
    for number, step in enumerate(program):
        try:
            function, words = (
                str(step["function"]),
                list(step.get("value_inputs") or step.get("side_inputs") or []),
            )
            inputs = [int(i) for i in step["inputs"]]
            if not all(0 <= i < number for i in inputs):
                raise IndexError(f"inputs {inputs}")
            value = _apply(function, words, [outputs[i] for i in inputs], objects, relationships)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise AtlasError(
                f"CLEVR program: step {number}: {step.get('function')}: cannot be executed ({error}); "
                "scenes and questions must be of one set"
            ) from None
        outputs.append(value)
        behind.append(set(value) if isinstance(value, list) else set().union(*(behind[i] for i in inputs)))
    if not outputs or isinstance(outputs[-1], list):
        raise AtlasError("CLEVR program: does not end in an answer; give the questions file as published")
    answer = outputs[-1]
    if isinstance(answer, bool):
        answer = "yes" if answer else "no"
    return str(answer), sorted(behind[-1])


def _apply(
    function: str,
    words: Sequence[str],
    inputs: Sequence[Any],
    objects: Sequence[Mapping[str, str]],
    relationships: Mapping[str, Sequence[Sequence[int]]],
) -> Any:
    """A list of object indices, a number, a word or a bool."""
    kind, _, attribute = function.partition("_")
    if function == "scene":
        return list(range(len(objects)))
    if function == "unique":
        (one,) = inputs[0]
        return [one]
    if function == "relate":
        (landmark,), (relation,) = inputs[0], words
        return sorted(relationships[relation][landmark])
    if function == "union":
        return sorted({*inputs[0], *inputs[1]})
    if function == "intersect":
        return sorted({*inputs[0]} & {*inputs[1]})
    if function == "count":
        return len(inputs[0])
    if function == "exist":
        return len(inputs[0]) > 0
    if function in COMPARE_INTEGER:
        first, second = (int(value) for value in inputs)
        return {"equal_integer": first == second, "less_than": first < second}.get(function, first > second)
    if attribute not in ATTRIBUTES:
        raise KeyError("unknown function")
    if kind == "filter":
        (word,) = words
        return [i for i in inputs[0] if objects[i][attribute] == word]
    if kind == "query":
        (one,) = inputs[0]
        return objects[one][attribute]
    if kind == "same":
        (one,) = inputs[0]
        return [i for i, o in enumerate(objects) if i != one and o[attribute] == objects[one][attribute]]
    if kind == "equal":
        first, second = inputs
        return bool(first == second)
    raise KeyError("unknown function")
