"""`AnnotatedAttention`: an attention store with the parses, links and regions of its examples.

Opened lazily and indexed once per example.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError, did_you_mean
from attention_atlas.language.parse import read_parses
from attention_atlas.language.parsed import Parse
from attention_atlas.measures.bootstrap import RESAMPLES, resampling_matrix
from attention_atlas.measures.distribution import check_weights
from attention_atlas.measures.item import MARKERS, Item, KindIndex, Link
from attention_atlas.progress import progress


class Axis(Protocol):
    """Tokens, their roles and word indices (-1 for none) of one axis of one example. An axis may also have
    `logprob`, the log probabilities of its tokens."""

    @property
    def tokens(self) -> Any: ...
    @property
    def roles(self) -> Any: ...
    @property
    def word(self) -> Any: ...


class Store(Protocol):
    """The part of `attention_atlas.recording.AttentionStore` that metrics need."""

    @property
    def ids(self) -> Any: ...
    @property
    def kinds(self) -> Any: ...
    @property
    def attrs(self) -> Any: ...
    def read(self, id: str, kind: str) -> np.ndarray: ...
    def axis(self, id: str, axis: str) -> Axis: ...


@dataclass
class AnnotatedAttention:
    """An attention store with the parses, links and regions of its examples.

    `gold`: links that are known to be right, or None. `causal`: the kinds whose row i sees keys 0..i only.
    `image_ids`: {example id: image id}; without it every example is its own image. `linker` and `regions`
    (their source) are names for the summary. Intervals resample images `resamples` times with `seed`.
    Raises AtlasError if another file lacks an example of the store, or if the words differ.
    """

    store: Store
    parses: Mapping[str, Parse]
    links: Mapping[str, Sequence[Link]] = field(default_factory=dict)
    image_ids: Mapping[str, str] = field(default_factory=dict)
    areas: Any = None  # callable image_id -> (N,) pixel areas of the valid regions, or None
    name: str = ""
    model: str = ""
    data: str = ""
    linker: str = ""
    regions: str = ""
    causal: Sequence[str] = ("decoder_self",)
    resamples: int = RESAMPLES
    seed: int = 0
    gold: Mapping[str, Sequence[Link]] | None = None

    def __post_init__(self) -> None:
        self.model = self.model or str(self.store.attrs.get("model", ""))
        if not len(self.store.ids):
            raise AtlasError("attention store: has no examples; dump at least one")
        for id_ in self.store.ids:
            if id_ not in self.parses:
                raise AtlasError(
                    f"parses: example '{id_}': is in the attention store but was not parsed; "
                    "parse and dump the same split"
                )
            if self.image_ids and id_ not in self.image_ids:
                raise AtlasError(
                    f"corpus: no example '{id_}', which is in the attention store; use its corpus"
                )

    @cached_property
    def ids(self) -> list[str]:
        return sorted(self.store.ids)

    @cached_property
    def image_of(self) -> dict[str, int]:
        """{example id: row of its image in the bootstrap}."""
        names = {id_: self.image_ids.get(id_, id_) for id_ in self.ids}
        numbers = {name: i for i, name in enumerate(sorted(set(names.values())))}
        return {id_: numbers[name] for id_, name in names.items()}

    @property
    def images(self) -> int:
        return max(self.image_of.values()) + 1

    @cached_property
    def counts_BI(self) -> np.ndarray:
        return resampling_matrix(self.images, self.resamples, self.seed)

    def item(self, id_: str) -> Item:
        """The example without attention."""
        words = len(self.parses[id_].tokens)
        gold = None if self.gold is None else self.gold.get(id_, ())
        for link in (*self.links.get(id_, ()), *(gold or ())):
            if not 0 <= link.start < link.end <= words:
                raise AtlasError(
                    f"links: example '{id_}': phrase [{link.start},{link.end}] is outside its {words} "
                    "words; link and dump the same parse"
                )
        areas = None if self.areas is None else self.areas(self.image_ids.get(id_, id_))
        links = self.links.get(id_, ())
        return Item(id_, self.image_of[id_], self.parses[id_], links, areas, gold=gold)

    def stream(self, kinds: Sequence[str]) -> Iterator[tuple[Item, str]]:
        """Yield (item, kind) for every example and kind, each read once; attention is `item.kinds[kind]`."""
        for kind in kinds:
            if kind not in self.store.kinds:
                raise AtlasError(
                    f"attention store: no attention of kind '{kind}'{did_you_mean(kind, self.store.kinds)}"
                )
        sizes: dict[str, tuple[int, ...]] = {}
        for id_ in progress(self.ids, "metrics"):
            item = self.item(id_)
            axes: dict[str, Axis] = {}
            for kind in kinds:
                for name in self.store.kinds[kind]:
                    axes[name] = axes[name] if name in axes else self.store.axis(id_, name)
                attn_LHQK = np.asarray(self.store.read(id_, kind), dtype=np.float32)
                if (known := sizes.setdefault(kind, attn_LHQK.shape[:2])) != attn_LHQK.shape[:2]:
                    raise AtlasError(
                        f"attention store: example '{id_}': {kind}: {attn_LHQK.shape[:2]} layers and heads, "
                        f"the examples before have {known}; dump all examples with one model"
                    )
                item.kinds = {**item.kinds, kind: self.index(item, kind, attn_LHQK, axes)}
                yield item, kind

    def index(self, item: Item, kind: str, attn_LHQK: np.ndarray, axes: Mapping[str, Axis]) -> KindIndex:
        """Index of one kind, after checking that the attention matches its axes and the mask and that its
        rows are distributions."""
        query, key = (axes[name] for name in self.store.kinds[kind])
        where = f"attention store: example '{item.id}': {kind}"
        if attn_LHQK.shape[2:] != (len(query.roles), len(key.roles)):
            raise AtlasError(f"{where}: shape {attn_LHQK.shape} differs from its axes; dump it again")
        query_roles, key_roles = np.asarray(query.roles, dtype=str), np.asarray(key.roles, dtype=str)
        query_word = _words(query, query_roles, item.parse, where)
        key_word = _words(key, key_roles, item.parse, where)
        markers = np.isin(key_roles, MARKERS)
        padding = key_roles == "pad"
        visible_QK = np.broadcast_to(~padding, attn_LHQK.shape[2:])
        if kind in self.causal:
            visible_QK = visible_QK & np.tri(*attn_LHQK.shape[2:]).astype(bool)
            # With a mask other than declared, all counts of visible keys and chance levels would be wrong.
            if (attn_LHQK.max(axis=(0, 1)) * ~visible_QK > 1e-3).any():
                raise AtlasError(f"{where}: attends to later words; remove the kind from `causal`")
        whole = getattr(self.store, "whole_rows", True)
        check_weights(attn_LHQK, where, partial=not whole, rows_Q=query_roles != "pad")
        logprob = getattr(query, "logprob", ())
        return KindIndex(
            kind=kind,
            attn_LHQK=attn_LHQK,
            query_word=query_word,
            key_word=key_word,
            query_counts=~np.isin(query_roles, (*MARKERS, "pad")),
            keys=~markers & ~padding,
            markers=markers,
            visible_QK=visible_QK,
            words=item.words,
            query_logprob=np.asarray(logprob) if len(logprob) else None,
        )


def _words(axis: Axis, roles: np.ndarray, parse: Parse, where: str) -> np.ndarray:
    word = np.asarray(axis.word, dtype=np.int64)
    if word.size and word.max() >= len(parse.tokens):
        raise AtlasError(
            f"{where}: word {word.max()} but the parse has {len(parse.tokens)} words; "
            "parse and dump the same text"
        )
    at = np.flatnonzero((roles == "text") & (word >= 0))
    # Unknown words and word pieces may differ; a different text differs nearly everywhere.
    same = sum(str(axis.tokens[i]).strip("▁Ġ#").lower() in parse.tokens[word[i]].text.lower() for i in at)
    if same < len(at) / 2:
        raise AtlasError(f"{where}: its words are not those of the parse; parse and dump the same corpus")
    return word


def read_annotated(
    attention: str | Path,
    parses: str | Path,
    links: str | Path | None,
    corpus: Corpus,
    features: Any = None,
    config_hash: str | None = None,
    gold: str | Path | None = None,
    **names: Any,
) -> AnnotatedAttention:
    """Open attention and its annotations from their files. `features` is an open FeaturesFile (for
    area-weighted chance) or None; `config_hash`, if given, must be that of the store; `gold`: a file of links
    that are known to be right, or None; `names` are the other fields of `AnnotatedAttention`."""
    from attention_atlas.recording import AttentionStore

    store = AttentionStore(attention)
    found = store.attrs.get("config_hash", "")
    if config_hash is not None and found != config_hash:
        raise AtlasError(
            f"{attention}: config_hash: '{found}', expected '{config_hash}'; dump again (dvc repro)"
        )
    return AnnotatedAttention(
        store=store,
        parses={p.id: p for p in read_parses(parses)},
        links=read_linked(links) if links is not None else {},
        gold=read_linked(gold) if gold is not None else None,
        image_ids={e.id: e.image_id for e in corpus.examples},
        areas=None if features is None else RegionAreas(features),
        regions="" if features is None else features.source,
        **names,
    )


def read_linked(path: str | Path) -> dict[str, list[Link]]:
    """{example id: linked phrases} from links.jsonl, without phrases that have no region."""
    from attention_atlas.language.links import read_links

    return {
        row.id: [Link(x.start, x.end, tuple(x.regions)) for x in row.links if len(x.regions)]
        for row in read_links(path)
    }


class RegionAreas:
    """Pixel areas (count,) of an image's valid regions, from an open FeaturesFile."""

    def __init__(self, features: Any) -> None:
        self.features = features

    def __call__(self, image_id: str) -> np.ndarray:
        regions = self.features.read(image_id)
        boxes = regions.boxes[: regions.count]
        return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
