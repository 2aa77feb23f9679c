"""Load the released Object Relation Transformer: the public code's weights, and words from its JSON.

The words come from the JSON of the public code's data preparation (`ix_to_word`); the `infos_*.pkl` beside
the weights is a pickle and is not opened. In the release, id 0 is PAD, BOS and EOS at once, and UNK is an
ordinary word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attention_atlas.data.json_rows import text
from attention_atlas.errors import AtlasError, first_line
from attention_atlas.files import read_json
from attention_atlas.language.vocabulary import EOS, SPECIALS, UNK, Vocabulary

if TYPE_CHECKING:
    from attention_atlas.models.released_object_relation import ReleasedObjectRelation

# Score of a token that must never be generated: its probability is 0 in float32. A larger magnitude would
# dominate checks that compare outputs relative to the largest.
NEVER = -1e4
_NORM = {"gain": "a_2", "bias": "b_2"}
_ATTENTION = {"query": "linears.0", "key": "linears.1", "value": "linears.2", "output": "linears.3"}
_FEED = {"inner": "w_1", "outer": "w_2"}


def read_released(
    weights: str | Path, words: str | Path
) -> tuple[dict[str, Tensor], Vocabulary, dict[str, Any]]:
    """(state dict of ReleasedObjectRelation, vocabulary, its sizes).

    weights: .pth (read without executing pickled code) or .safetensors. Raises AtlasError naming the first
    key that is missing, unknown or of another shape.
    """
    released = read_weights(weights)
    ids = read_words(words)
    vocabulary = Vocabulary([ids[i] for i in sorted(ids) if ids[i] != "UNK"])
    sizes = sizes_of(released, str(weights))
    theirs = released["model.tgt_embed.0.lut.weight"].shape[0]
    if theirs != len(ids) + 1:
        raise AtlasError(
            f"{words}: ix_to_word: has {len(ids)} words, the weights have {theirs - 1}; "
            "use the JSON of this model"
        )
    names = key_map(sizes["layers"], sizes["heads"])
    state: dict[str, Tensor] = {}
    used = set()
    for ours, sources in names.items():
        parts = [_take(released, name, str(weights)) for name in sources]
        used.update(sources)
        state[ours] = torch.cat(parts) if len(parts) > 1 else parts[0].clone()
    for name in sorted(set(released) - used - _VOCABULARY - {"model.tgt_embed.1.pe"}):
        raise AtlasError(
            f"{weights}: {name}: is not part of the released layout; check the file's model type"
        )
    rows = row_map(ids, vocabulary)
    embedding = released["model.tgt_embed.0.lut.weight"]
    weight, bias = released["model.generator.proj.weight"], released["model.generator.proj.bias"]
    generated = torch.tensor([r if i in (EOS, UNK) or i >= len(SPECIALS) else -1 for i, r in enumerate(rows)])
    state["decoder.embedding.words.weight"] = embedding[torch.tensor(rows).clamp(min=0)]
    state["decoder.generator.weight"] = weight[generated.clamp(min=0)] * (generated >= 0)[:, None]
    state["decoder.generator.bias"] = torch.where(generated >= 0, bias[generated.clamp(min=0)], NEVER)
    return state, vocabulary, {**sizes, "vocab_size": len(vocabulary)}


_VOCABULARY = {"model.tgt_embed.0.lut.weight", "model.generator.proj.weight", "model.generator.proj.bias"}


def key_map(layers: int, heads: int) -> dict[str, list[str]]:
    """{our name: released names (several are concatenated along the first axis)}, without the vocabulary
    matrices."""
    names: dict[str, list[str]] = {}
    for kind in ("weight", "bias"):
        names[f"project.0.{kind}"] = [f"att_embed.0.{kind}"]
    for i in range(layers):
        ours, theirs = f"encoder.{i}", f"model.encoder.layers.{i}"
        _block(names, f"{ours}.self_attention", f"{theirs}.self_attn", _ATTENTION)
        _block(names, f"{ours}.feed_forward", f"{theirs}.feed_forward", _FEED)
        for kind in ("weight", "bias"):
            names[f"{ours}.geometry.{kind}"] = [f"{theirs}.self_attn.WGs.{h}.{kind}" for h in range(heads)]
        _norm(names, f"{ours}.norm_self", f"{theirs}.sublayer.0.norm")
        _norm(names, f"{ours}.norm_feed", f"{theirs}.sublayer.1.norm")
        ours, theirs = f"decoder.layers.{i}", f"model.decoder.layers.{i}"
        _block(names, f"{ours}.self_attention", f"{theirs}.self_attn", _ATTENTION)
        _block(names, f"{ours}.cross_attention", f"{theirs}.src_attn", _ATTENTION)
        _block(names, f"{ours}.feed_forward", f"{theirs}.feed_forward", _FEED)
        for n, part in enumerate(("norm_self", "norm_cross", "norm_feed")):
            _norm(names, f"{ours}.{part}", f"{theirs}.sublayer.{n}.norm")
    _norm(names, "encoder_norm", "model.encoder.norm")
    _norm(names, "decoder.norm", "model.decoder.norm")
    return names


def _block(names: dict[str, list[str]], ours: str, theirs: str, parts: Mapping[str, str]) -> None:
    for mine, other in parts.items():
        for kind in ("weight", "bias"):
            names[f"{ours}.{mine}.{kind}"] = [f"{theirs}.{other}.{kind}"]


def _norm(names: dict[str, list[str]], ours: str, theirs: str) -> None:
    for mine, other in _NORM.items():
        names[f"{ours}.{mine}"] = [f"{theirs}.{other}"]


def sizes_of(released: Mapping[str, Tensor], where: str) -> dict[str, int]:
    """Layers, heads, dim, inner and feature_dim, derived from the shapes."""

    def count(prefix: str) -> int:
        found = {int(k[len(prefix) :].split(".")[0]) for k in released if k.startswith(prefix)}
        if found != set(range(len(found))) or not found:
            raise AtlasError(f"{where}: {prefix}*: keys are missing; this is not a released ORT checkpoint")
        return len(found)

    project = _take(released, "att_embed.0.weight", where)
    return {
        "layers": count("model.decoder.layers."),
        "heads": count("model.encoder.layers.0.self_attn.WGs."),
        "dim": project.shape[0],
        "inner": _take(released, "model.encoder.layers.0.feed_forward.w_1.weight", where).shape[0],
        "feature_dim": project.shape[1],
    }


def row_map(ids: Mapping[int, str], vocabulary: Vocabulary) -> list[int]:
    """Row of the released matrices for each of our ids: PAD, BOS and EOS share row 0; −1 for none (UNK of a
    vocabulary without it)."""
    row_of = {word: i for i, word in ids.items()}
    return [0, 0, 0, row_of.get("UNK", -1), *(row_of[word] for word in vocabulary.words)]


def read_words(path: str | Path) -> dict[int, str]:
    """`ix_to_word` of the public code's data JSON: ids from 1 without gaps."""
    path = Path(path)
    value = read_json(path, "it is written by the public code's prepro_labels.py")
    try:
        table = value["ix_to_word"]
        ids = {int(i): text(table, i, f"{path}: ix_to_word") for i in table}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AtlasError(f"{path}: ix_to_word: is not a table of ids and words; use the data JSON") from None
    if sorted(ids) != list(range(1, len(ids) + 1)):
        raise AtlasError(f"{path}: ix_to_word: ids are not 1..{len(ids)}; use the data JSON of this model")
    return ids


def read_weights(path: str | Path) -> dict[str, Tensor]:
    path = Path(path)
    if not path.exists():
        raise AtlasError(
            f"{path}: no such file; download the released checkpoint (make paper-check names it)"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise AtlasError(f"{path}: not a file of weights ({first_line(error)}); download it again") from None
    if not isinstance(value, dict) or not all(isinstance(v, Tensor) for v in value.values()):
        raise AtlasError(f"{path}: is not a state dict; use the model's .pth, not its infos or optimizer")
    return value


def _take(released: Mapping[str, Tensor], name: str, where: str) -> Tensor:
    if name not in released:
        raise AtlasError(f"{where}: {name}: is missing; this is not a released ORT checkpoint")
    return released[name]


def load_released(
    weights: str | Path,
    words: str | Path,
    *,
    max_words: int = 16,
    max_length: int = 18,
    legacy_extra_skip: bool = True,
    device: str = "cpu",
    **expected: int,
) -> tuple[ReleasedObjectRelation, Vocabulary, dict[str, Any]]:
    """(model in evaluation mode, vocabulary, configuration as of a run). legacy_extra_skip: as the release
    was trained. max_words: of its training captions. expected: layers, heads, dim, inner; AtlasError if the
    weights have others."""
    from attention_atlas.models.released_object_relation import ReleasedObjectRelation

    state, vocabulary, sizes = read_released(weights, words)
    for name, number in expected.items():
        if sizes.get(name) != number:
            raise AtlasError(
                f"{weights}: {name}: the weights have {sizes.get(name)}, not {number}; correct the model"
            )
    model = ReleasedObjectRelation(**sizes, max_length=max_length, legacy_extra_skip=legacy_extra_skip)
    wrong = [(n, tuple(p.shape)) for n, p in model.state_dict().items() if state[n].shape != p.shape]
    if wrong:
        raise AtlasError(f"{weights}: {wrong[0][0]}: shape is not {wrong[0][1]}; check the file")
    model.load_state_dict(state)
    return model.to(device).eval(), vocabulary, {"sizes": sizes, "train": {"task": {"max_words": max_words}}}
