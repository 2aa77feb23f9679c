"""Linking a whole corpus: distinct strings are encoded once, then every example is scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError
from attention_atlas.language.links import Links, PhraseLink
from attention_atlas.language.parsed import Parse
from attention_atlas.linking.base import LinkContext, Linker, link
from attention_atlas.progress import progress
from attention_atlas.regions.features_file import FeaturesFile


def link_corpus(
    parses: Sequence[Parse], corpus: Corpus, features: FeaturesFile, linker: Linker, threshold: float = 0.1
) -> list[Links]:
    """Links of every parsed example, in the order of `parses`.

    Skips phrases excluded by Appendix B. `threshold`: minimum confidence (exclusive) of an attribute in a
    region's description. Raises AtlasError for a parse without an example or an image without features.
    """
    result = []
    for context, similarity_PN in similarities(parses, corpus, features, linker, threshold):
        item = Links(context.parse.id, linker.name)
        linked = link(similarity_PN, linker.tolerance)
        for phrase, text, row, regions in zip(
            context.phrases, context.texts, similarity_PN, linked, strict=True
        ):
            if regions:
                item.links.append(
                    PhraseLink(phrase.start, phrase.end, text, regions, float(row[regions].max()))
                )
        result.append(item)
    return result


def similarities(
    parses: Sequence[Parse], corpus: Corpus, features: FeaturesFile, linker: Linker, threshold: float = 0.1
) -> Iterator[tuple[LinkContext, np.ndarray]]:
    """Each example with its (P, N) similarities; P = phrases that are not stopped, N = real regions."""
    found = list(contexts(parses, corpus, features, threshold))
    linker.prepare({s for c in found for s in (*c.texts, *c.descriptions)})
    for context in progress(found, f"link {linker.name}", len(found)):
        similarity_PN = linker.similarity_in(context)
        expected = (len(context.phrases), len(context.descriptions))
        if similarity_PN.shape != expected:
            raise AtlasError(
                f"linker {linker.name}: example '{context.parse.id}': similarity has shape "
                f"{similarity_PN.shape}, expected {expected}; correct the linker"
            )
        yield context, similarity_PN


def contexts(
    parses: Sequence[Parse], corpus: Corpus, features: FeaturesFile, threshold: float = 0.1
) -> Iterator[LinkContext]:
    """The linkers' input for each example whose image has regions (see `features.skipped`)."""
    examples = {e.id: e for e in corpus.examples}
    skipped = set(features.skipped)
    for parse in parses:
        example = examples.get(parse.id)
        if example is None:
            raise AtlasError(
                f"parse: id '{parse.id}' is not in data set '{corpus.name}'; run the parse stage again"
            )
        if example.image_id in skipped:
            continue
        phrases = [p for p in parse.phrases if not p.stop]
        yield LinkContext(
            parse,
            phrases,
            [parse.text(p.start, p.end) for p in phrases],
            features.descriptions(example.image_id, threshold),
            features.read(example.image_id),
            example,
        )
