"""Static spatial relations (target, relation, landmark) by dependency rules.

The paper takes them from a trained labeller whose models are no longer published; these rules give the
same triples (annotation scheme of Kolomiyets et al. 2013): a spatial expression, the noun phrase it
takes (landmark) and the noun phrase that is located (target). Expressions are in `spatial_terms.py`.

A triple stays within one sentence. Its parts may occur in any order ("On the table there is a lamp" is
relation-landmark-target); `SpatialRelation.order` gives the order, which metrics on causal self-attention
must take into account.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attention_atlas.language.parsed import SpatialRelation
from attention_atlas.language.phrases import STOP_WORDS, has_words, trimmed
from attention_atlas.language.spatial_terms import NOT_PLACES, SUSPENDING, term_at

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

_NOMINAL = ("NOUN", "PROPN", "PRON", "NUM")
_PRENOMINAL = ("det", "amod", "compound", "nummod", "poss", "nmod", "predet", "quantmod", "advmod")
_RELATIVE = ("that", "which", "who")
# "a lot of books", "one of the chairs", "a chest of drawers": the noun after "of" is meant.
_QUANTITIES = """
lot lots couple pair pairs set sets number row bunch group piece pieces plenty variety one two three four some
few many most all both each several chest chests
"""
_PARTITIVE = frozenset(_QUANTITIES.split())
_DUMMY = ("this", "that", "it", "these", "those", "they", "there")


def spatial_relations(doc: Doc) -> list[SpatialRelation]:
    """All triples of a parsed text, sorted by their relation, each once."""
    found: dict[tuple[tuple[int, int], tuple[int, int], tuple[int, int]], str] = {}
    i = 0
    while i < len(doc):
        term = term_at(doc, i)
        if term is None:
            i += 1
            continue
        length, kind = term
        triple = _triple(doc, i, i + length)
        if triple is not None:
            found.setdefault(triple, kind)
        i += length
    ordered = sorted(found.items(), key=lambda item: (item[0][1], item[0][0], item[0][2]))
    return [SpatialRelation(t, r, m, kind) for (t, r, m), kind in ordered]


def _triple(
    doc: Doc, start: int, end: int
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None:
    span = doc[start:end]
    landmark = _landmark(doc, start, end)
    if landmark is None or landmark.lower_ in NOT_PLACES:
        return None
    governor = span.root.head
    if span.root.dep_ == "agent" and span.root.head.lower_ not in ("surrounded", "flanked", "bordered"):
        return None
    if start <= governor.i < end:  # the expression is the root of its sentence and locates nothing
        return None
    if span[0].lower_ == "from" and governor.lower_ not in SUSPENDING:
        return None
    target = _target(governor, span.root)
    if target is None or target.sent != span.root.sent or landmark.sent != span.root.sent:
        return None
    between = span[-1].lower_ in ("between", "among")
    target_span = noun_span(target, joined=governor.pos_ in ("VERB", "AUX"))
    landmark_span = noun_span(landmark, joined=between)
    if not has_words(doc[slice(*target_span)]) or not has_words(doc[slice(*landmark_span)]):
        return None
    if _overlap(target_span, landmark_span) or _overlap(target_span, (start, end)):
        return None
    if _overlap(landmark_span, (start, end)):
        return None
    if doc[target_span[1] - 1].lower_ in STOP_WORDS or doc[landmark_span[1] - 1].lower_ in STOP_WORDS:
        return None
    return target_span, (start, end), landmark_span


def noun_span(head: Token, joined: bool = False) -> tuple[int, int]:
    """The flat noun phrase of `head`, including "of ..." after a quantity word.

    With `joined` it spans all members of a coordination that starts with it.
    """
    start = head.i
    for child in sorted(head.lefts, key=lambda t: -t.i):
        if child.dep_ not in _PRENOMINAL:
            break
        start = child.left_edge.i
    end = head.i + 1
    if head.lower_ in _PARTITIVE and end < len(head.doc) and head.doc[end].lower_ == "of":
        whole = [t for t in head.doc[end].rights if t.dep_ == "pobj"]
        end = noun_span(whole[0])[1] if whole else end
    if joined:
        members = [t for t in head.conjuncts if t.pos_ in _NOMINAL and t.i > head.i]
        end = max([end, *(t.i + 1 for t in members)])
    return trimmed(head.doc, start, end, head.i)


def _landmark(doc: Doc, start: int, end: int) -> Token | None:
    """The expression's landmark: a prepositional object, or the noun phrase right after it."""
    for token in reversed(doc[start:end]):
        for child in token.rights:
            if child.i >= end and child.dep_ in ("pobj", "pcomp", "dobj") and child.pos_ in _NOMINAL:
                return child
    if end < len(doc) and doc[end].sent == doc[start].sent:
        token = doc[end]
        # A parser error ("next to" as a conjunction): use the noun phrase that starts here.
        while token.dep_ in _PRENOMINAL and token.head.i > token.i:
            token = token.head
        if token.pos_ in _NOMINAL and token.left_edge.i <= end <= token.i and token.dep_ != "nsubj":
            return token
    return None


def _target(governor: Token, expression: Token) -> Token | None:
    """The located noun, found by climbing from the expression's governor."""
    token = governor
    for _ in range(8):  # a deeper tree is a parser error
        if token.pos_ in ("VERB", "AUX"):
            found = _target_of_verb(token, expression)
            if found is not None:
                return found
        # "to the left, next to the bed": a place word is not a target, so climb past it.
        elif token.pos_ in _NOMINAL and token.lower_ not in STOP_WORDS:
            return token
        if token.head == token:
            return None
        token = token.head
    return None


def _target_of_verb(verb: Token, expression: Token) -> Token | None:
    """Subject, or the object of a transitive verb, or what 'there is' introduces."""
    subject = objects = None
    there = False
    for child in verb.children:
        if child.i == expression.i:
            continue
        if child.dep_ in ("nsubj", "nsubjpass", "csubj") and child.pos_ in _NOMINAL:
            subject = child
        elif child.dep_ in ("attr", "dobj", "oprd") and child.pos_ in _NOMINAL and objects is None:
            objects = child
        elif child.dep_ == "expl":
            there = True
    if subject is not None and subject.lower_ in _RELATIVE and verb.dep_ == "relcl":
        subject = verb.head
    if subject is None and not there and objects is None and verb.dep_ in ("acl", "relcl"):
        return verb.head if verb.head.pos_ in _NOMINAL else None
    if there or subject is None or subject.lower_ in _DUMMY:
        return objects if objects is not None else (None if there else subject)
    # "The room has a bed in the corner", "I can see a bed by the wall": the object is located.
    if verb.pos_ == "VERB" and objects is not None:
        return objects
    return subject


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]
