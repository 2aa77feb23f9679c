"""All text metrics of one or several models, starting Java once per jar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attention_atlas.errors import AtlasError
from attention_atlas.measures.text.bleu import bleu_counts
from attention_atlas.measures.text.cider import cider
from attention_atlas.measures.text.tokenize import package_folder, plain, treebank, why_no_java
from attention_atlas.measures.text.wmd import load_vectors, wmd

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "CIDEr", "WMD")

References = Mapping[str, Sequence[str]]
Hypotheses = Mapping[str, str]


def score(references: References, hypotheses: Hypotheses) -> dict[str, Any]:
    """Scores of one model; see `score_models`."""
    return score_models(references, {"": hypotheses})[""]


def score_models(references: References, models: Mapping[str, Hypotheses]) -> dict[str, dict[str, Any]]:
    """Per model: `scores` {metric: value or None}, `per_example` {metric: {id: value}}, `n`, `notes`,
    and `bleu_counts` {id: n-gram counts} (measures/text/bleu.py).

    All values are per cent as in the paper's Table 1 (CIDEr 26.38 is 0.2638 of the implementation's scale).
    BLEU-n is the corpus score with the closest reference length; its per-example values are sentence scores,
    whose mean differs. METEOR 1.5 and CIDEr-D come from pycocoevalcap; WMD is the similarity
    100 · exp(−distance), in addition to `WMD distance`. Without Java the tokens come from our own rules and
    METEOR is None, as recorded in `notes`.

    Raises AtlasError if a model's hypotheses and the references have different ids.
    """
    package_folder()
    for model, hypotheses in models.items():
        _check_ids(references, hypotheses, model)
    ids = sorted(references)
    notes = []
    missing = why_no_java()
    if missing:
        notes.append(f"METEOR is missing and tokens are not Treebank tokens: {missing}")
    texts = [text for i in ids for text in references[i]]
    texts += [hypotheses[i] for hypotheses in models.values() for i in ids]
    split = iter(plain(texts) if missing else treebank(texts))
    tokens = {i: [next(split) for _ in references[i]] for i in ids}
    tokenized = {model: {i: next(split) for i in ids} for model in models}
    meteor = {} if missing else _meteor(tokens, tokenized)
    every = {w for rows in tokens.values() for text in rows for w in text.split()}
    every |= {w for rows in tokenized.values() for text in rows.values() for w in text.split()}
    vectors = load_vectors(every)
    return {
        model: {"n": len(ids), "notes": list(notes), **_one(tokens, rows, meteor.get(model), vectors)}
        for model, rows in tokenized.items()
    }


def _one(tokens: References, hypotheses: Hypotheses, meteor: Any, vectors: Any) -> dict[str, Any]:
    from pycocoevalcap.bleu.bleu import Bleu

    ids = sorted(tokens)
    corpus, sentences = Bleu(4).compute_score(
        {i: list(tokens[i]) for i in ids}, {i: [hypotheses[i]] for i in ids}, verbose=0
    )
    per_example: dict[str, dict[str, float]] = {}
    scores: dict[str, float | None] = {}
    for n in range(4):
        scores[f"BLEU-{n + 1}"] = 100 * float(corpus[n])
        per_example[f"BLEU-{n + 1}"] = {i: 100 * float(v) for i, v in zip(ids, sentences[n])}
    scores["METEOR"] = None if meteor is None else 100 * meteor[0]
    if meteor is not None:
        per_example["METEOR"] = {i: 100 * v for i, v in zip(ids, meteor[1])}
    mean, each = cider(tokens, hypotheses)
    scores["CIDEr"] = 100 * mean
    per_example["CIDEr"] = {i: 100 * v for i, v in each.items()}
    per_example["WMD"], distance = wmd(tokens, hypotheses, vectors)
    scores["WMD"] = sum(per_example["WMD"].values()) / len(ids)
    finite = [d for d in distance.values() if d != float("inf")]
    scores["WMD distance"] = sum(finite) / len(finite) if finite else None
    return {"scores": scores, "per_example": per_example, "bleu_counts": bleu_counts(tokens, hypotheses)}


def _meteor(tokens: References, hypotheses: Mapping[str, Hypotheses]) -> dict[str, tuple[float, list[float]]]:
    """Corpus METEOR and per-example values, for all models in one process."""
    from pycocoevalcap.meteor.meteor import Meteor

    ids = sorted(tokens)
    program = Meteor()
    gold = {i: list(tokens[i]) for i in ids}
    result = {}
    for model, rows in hypotheses.items():
        # METEOR's program returns nothing for an empty hypothesis; an unmatched word also scores 0.
        value, each = program.compute_score(gold, {i: [rows[i] or "∅"] for i in ids})
        result[model] = (float(value), [float(v) for v in each])
    return result


def _check_ids(references: References, hypotheses: Hypotheses, model: str) -> None:
    name = f"hypotheses of '{model}'" if model else "hypotheses"
    if not references:
        raise AtlasError("references: there are none; check the split")
    for extra in sorted(set(hypotheses) - set(references))[:1]:
        raise AtlasError(f"{name}: '{extra}' has no reference; generate for the same split")
    for absent in sorted(set(references) - set(hypotheses))[:1]:
        raise AtlasError(f"{name}: '{absent}' is missing; generate for the whole split")
    for i in sorted(references):
        if not list(references[i]):
            raise AtlasError(f"references: '{i}' has none; check the corpus")
        for where, texts in (("references", references[i]), (name, [hypotheses[i]])):
            try:
                "".join(texts).encode("utf-8")
            except UnicodeEncodeError as error:  # Java reads the texts as UTF-8
                raise AtlasError(f"{where}: '{i}': text: {error}; replace the character") from None
