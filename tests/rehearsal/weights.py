"""Weights by path: the released captioner in the public code's layout, and the Inception network of 2015."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .drawn import SIZE, Thing
from .regions import detected

WIDTH, LAYERS, HEADS, FEATURES = 24, 6, 8, 2048
REGIONS, STEPS, RATE = 8, 200, 5e-3


def write_captioner(folder: Path, images: Iterable[tuple[list[Thing], list[list[str]]]]) -> None:
    """model-best.pth and cocotalk.json; `images`: what is on each, and its captions as lists of
    words, from which a few steps learn."""
    from attention_atlas.models.yahoo_checkpoint import key_map

    images = list(images)
    words = sorted({word for _, captions in images for caption in captions for word in caption})
    ids = {word: i for i, word in enumerate([*words, "UNK"], 1)}
    model = _trained(images, ids)
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


def _trained(images: list[tuple[list[Thing], list[list[str]]]], ids: dict[str, int]) -> Any:
    """Enough steps for captions that can be parsed and differ from image to image."""
    from attention_atlas.language.vocabulary import BOS, EOS, PAD
    from attention_atlas.models.released_object_relation import ReleasedObjectRelation

    torch.manual_seed(0)
    sizes = {"layers": LAYERS, "heads": HEADS, "dim": WIDTH, "inner": WIDTH, "dropout": 0.0}
    model = ReleasedObjectRelation(len(ids) + 3, FEATURES, feature_dropout=0.0, max_length=18, **sizes)
    seen = [detected(shown, seed, REGIONS) for seed, (shown, _) in enumerate(images)]
    features_INF = torch.from_numpy(np.stack([s["features"] for s in seen]))
    boxes_IN4 = torch.from_numpy(np.stack([s["boxes"] for s in seen])) / torch.tensor([*SIZE, *SIZE])
    rows = [(n, caption) for n, (_, captions) in enumerate(images) for caption in captions[:1]]
    image_C = torch.tensor([n for n, _ in rows])
    encoded = [torch.tensor([BOS, *(ids[w] + 3 for w in caption[:16]), EOS]) for _, caption in rows]
    ids_CT = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True, padding_value=PAD)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    for _ in range(STEPS):
        chosen = torch.randint(len(rows), (24,))
        ids_BT, image_B = ids_CT[chosen], image_C[chosen]
        batch = {"ids_BT": ids_BT, "features_BND": features_INF[image_B], "boxes_BN4": boxes_IN4[image_B]}
        logits_BTV = model(batch | {"regions_BN": torch.ones(24, REGIONS).bool()})
        loss = torch.nn.functional.cross_entropy(
            logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten(), ignore_index=PAD
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def fresh_inception() -> Any:
    """A network of its own class, loud enough for its answers to differ from image to image."""
    from attention_atlas.models.inception import network_class

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
    return network


def write_inception(path: Path) -> None:
    """A state dict, in the older format of the published file."""
    network = fresh_inception()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
