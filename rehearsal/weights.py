"""Weights by path: the released captioner in the public code's layout, and the Inception network of 2015."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

WIDTH, LAYERS, HEADS, FEATURES = 24, 6, 8, 2048
STEPS = 120


def write_captioner(folder: Path, captions: Iterable[list[str]]) -> None:
    """model-best.pth and cocotalk.json; `captions`: lists of words, from which a few steps learn."""
    from attention_atlas.models.yahoo_checkpoint import key_map

    captions = list(captions)
    words = sorted({word for caption in captions for word in caption})
    ids = {word: i for i, word in enumerate([*words, "UNK"], 1)}
    model = _trained(captions, ids)
    state = model.state_dict()
    released = {}
    for ours, theirs in key_map(LAYERS, HEADS).items():
        for name, part in zip(theirs, state[ours].chunk(len(theirs)), strict=True):
            released[name] = part.clone()
    # There 0 is PAD, BOS and EOS in one; here BOS and EOS have rows of their own.
    rows = torch.tensor([1, *range(4, 4 + len(words)), 3])
    ends = torch.tensor([2, *range(4, 4 + len(words)), 3])
    released["model.tgt_embed.0.lut.weight"] = state["decoder.embedding.words.weight"][rows]
    released["model.generator.proj.weight"] = state["decoder.generator.weight"][ends]
    released["model.generator.proj.bias"] = state["decoder.generator.bias"][ends]
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(released, folder / "model-best.pth")
    (folder / "cocotalk.json").write_text(json.dumps({"ix_to_word": {str(i): w for w, i in ids.items()}}))


def _trained(captions: list[list[str]], ids: dict[str, int]) -> Any:
    """Enough to put nouns behind articles: captions that can be parsed. Regions are noise to it."""
    from attention_atlas.models.released_object_relation import ReleasedObjectRelation
    from attention_atlas.training.vocab import BOS, EOS, PAD

    torch.manual_seed(0)
    sizes = {"layers": LAYERS, "heads": HEADS, "dim": WIDTH, "inner": WIDTH, "dropout": 0.0}
    model = ReleasedObjectRelation(len(ids) + 3, FEATURES, feature_dropout=0.0, max_length=18, **sizes)
    rows = [torch.tensor([BOS, *(ids[w] + 3 for w in caption[:16]), EOS]) for caption in captions]
    ids_NT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    optimizer = torch.optim.Adam(model.parameters(), 8e-3)
    for step in range(STEPS):
        ids_BT = ids_NT[torch.randint(len(rows), (24,))]
        corners = torch.rand(24, 3, 2) / 2
        batch = {"ids_BT": ids_BT, "features_BND": torch.rand(24, 3, FEATURES)}
        batch |= {"boxes_BN4": torch.cat([corners, corners + 0.4], -1), "regions_BN": torch.ones(24, 3).bool()}
        loss = torch.nn.functional.cross_entropy(model(batch).flatten(0, 1), ids_BT[:, 1:].flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def write_inception(path: Path) -> None:
    """A state dict of the network's own class, in the older format of the published file."""
    from attention_atlas.text_to_image.inception import network_class

    class Fresh(network_class()):  # type: ignore[misc]
        def load_state_dict(self, *given: Any, **named: Any) -> None:
            """Stays as it was made."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    torch.manual_seed(0)
    network = Fresh("fresh", ["2048", "logits_unbiased"], feature_extractor_weights_path=nothing)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
