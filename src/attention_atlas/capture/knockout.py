"""Attention knock-out: chosen queries may not read chosen keys (Geva et al. 2023, section 5).

    edges = cut_edges(roles_of(inputs, model.config), "text", "image")
    with knocked_out(model, edges, layers=range(8, 12)):
        model(**inputs, use_cache=False)

The score of a cut edge is −∞, so its weight is exactly 0 and the softmax spreads the row over the other keys.
Rows without a cut edge keep the module's own context bit for bit. The model is unchanged: after the block it
computes as before.

Blocks nest. A capture around them records the attention with the cuts: `capture.run(f)`, where f opens
`knocked_out` and calls the model.

Axes: B batch, H head, S position of the sequence, Q query, K key, E size of a value.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.capture.routes import captured_by
from attention_atlas.capture.seam import AttentionCall, Recorder, current, wants
from attention_atlas.capture.sites import Sites
from attention_atlas.errors import AtlasError, ConfigError, did_you_mean

QUERIES = KEYS = ("text", "image", "prompt", "answer")
IMAGES = ("image", "video")


@dataclass(frozen=True)
class Edges:
    """within_BSS: bool, True where a query (axis 1) may not attend to a key (axis 2) of its own sequence.
    across_BS: queries that may not read an image that is not part of the sequence (cross-attention)."""

    within_BSS: Tensor
    across_BS: Tensor


def cut_edges(
    roles_BS: Sequence[Sequence[str]], query: str, key: str, start: int | Sequence[int] | None = None
) -> Edges:
    """The edges from `query` to `key`, each one of:

    - image: positions of images and videos;
    - text: all others. As queries they include BOS and the marks around an image, which would otherwise
      carry the image to the text;
    - answer: as keys the positions from `start` on; as queries those that predict them, from start − 1 on;
    - prompt: text before the answer.

    As keys, text and prompt leave out BOS, or the first position if there is no BOS: models use it as a sink,
    and it holds no text. A position always sees itself. Padding is neither query nor key.

    start: where the answer begins, for each row of the batch or for all. Raises ConfigError for an unknown
    name or a missing `start`.
    """
    for name, known in ((query, QUERIES), (key, KEYS)):
        if name not in known:
            raise ConfigError(f"knock-out: '{name}' is not a part of the sequence{did_you_mean(name, known)}")
    if start is None and {query, key} & {"prompt", "answer"}:
        raise ConfigError(f"knock-out: {query} → {key}: needs start=, where the answer begins")
    batch, length = len(roles_BS), len(roles_BS[0])
    image_BS = torch.tensor([[role in IMAGES for role in row] for row in roles_BS])
    real_BS = torch.tensor([[role != "pad" for role in row] for row in roles_BS])
    first_BS = torch.tensor([_firsts(row) for row in roles_BS])
    begin_B1 = torch.as_tensor(length if start is None else start).reshape(-1, 1).expand(batch, 1)
    at_S = torch.arange(length)

    def chosen(name: str, begins_B1: Tensor) -> Tensor:
        after_BS = at_S >= begins_B1
        of = {"image": image_BS, "text": ~image_BS, "prompt": ~image_BS & ~after_BS, "answer": after_BS}
        return of[name] & real_BS

    query_BS, key_BS = chosen(query, begin_B1 - 1), chosen(key, begin_B1)
    if key in ("text", "prompt"):
        key_BS &= ~first_BS
    within_BSS = query_BS[:, :, None] & key_BS[:, None, :] & ~torch.eye(length, dtype=torch.bool)
    return Edges(within_BSS, query_BS if key == "image" else torch.zeros_like(query_BS))


@contextlib.contextmanager
def knocked_out(
    model: nn.Module,
    edges: Edges,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Iterator[None]:
    """Context manager: the language model runs without `edges`, in this thread, in whole passes (no cache).

    layers, heads: numbers from 0; None: all. Works under sdpa and eager, with and without gradients.

    Raises AtlasError where a layer has no attention that passes through the seam (linear attention, flash),
    and for a sequence whose length differs from that of the edges.
    """
    cut = _Cut(Sites(model, ["*"], {}), edges, layers, heads, current())
    with captured_by(cut, model):
        yield
    cut.finish()


def _firsts(roles_S: Sequence[str]) -> list[bool]:
    """Whether each position is BOS or, without one, the first position."""
    if "bos" in roles_S:
        return [role == "bos" for role in roles_S]
    first = next((s for s, role in enumerate(roles_S) if role != "pad"), -1)
    return [s == first for s in range(len(roles_S))]


class _Cut:
    """The recorder that computes attention without the edges; the recorder around it gets the same call."""

    def __init__(
        self,
        sites: Sites,
        edges: Edges,
        layers: Sequence[int] | None,
        heads: Sequence[int] | None,
        outer: Recorder | None,
    ) -> None:
        self.sites, self.edges, self.outer = sites, edges, outer
        self.layers = None if layers is None else set(layers)
        self.heads = None if heads is None else list(heads)
        self.decoder = sites.decoder_name()
        # {"decoder" | "cross": {stack of layers: numbers of its layers that attended}}
        self.seen: dict[str, dict[str, set[int]]] = {"decoder": {}, "cross": {}}

    def wants(self, module: nn.Module) -> bool:
        return self._part(module) != "" or (self.outer is not None and wants(self.outer, module))

    def residual_input(self, module: nn.Module, x: Tensor) -> None:
        if self.outer is not None:
            self.outer.residual_input(module, x)

    def attend(self, call: AttentionCall) -> Tensor:
        part = self._part(call.module)
        if part:
            name, _, layer = self.sites.site(call.module)
            stack = name.rpartition(f".{layer}.")[0]
            self.seen[part].setdefault(stack, set()).add(layer)
            if self.layers is None or layer in self.layers:
                call = self._without(call, self._barred(call, part, name))
        context = call.context()
        if self.outer is not None and wants(self.outer, call.module):
            # A capture records the attention and returns `own`; another cut adds its edges.
            return self.outer.attend(dataclasses.replace(call, own=context, plain=None))
        return context

    def finish(self) -> None:
        """Raise AtlasError for requested layers that were not cut."""
        cut = {part: set().union(*stacks.values()) for part, stacks in self.seen.items()}
        missing = sorted((self.layers or set()) - cut["decoder"] - cut["cross"])
        if missing or not any(cut.values()):
            where = f"layers {', '.join(map(str, missing))}" if missing else "the model"
            raise AtlasError(
                f"knock-out: in {where} no attention passed through the capture: there is none (linear "
                "attention), or the model did not run, or has fewer layers; choose others, counted from 0"
            )
        if self.layers is None and self.decoder_depth() > len(cut["decoder"] | cut["cross"]):
            raise AtlasError(
                f"knock-out: attention was cut in {len(cut['decoder'] | cut['cross'])} of the model's "
                f"{self.decoder_depth()} layers: the others mix positions in another way; name layers="
            )
        if self.layers is not None and set(self.seen["cross"]) - set(self.seen["decoder"]):
            raise AtlasError(
                "knock-out: the layers of the model's cross-attention are counted separately from the "
                "others; cut all layers (layers=None)"
            )

    def decoder_depth(self) -> int:
        config: Any = getattr(self.sites.model, "config", None)
        text = config.get_text_config() if hasattr(config, "get_text_config") else None
        return int(getattr(text, "num_hidden_layers", 0))

    def _part(self, module: nn.Module) -> str:
        """ "decoder", "cross" inside the language model, or ""."""
        name = self.sites.names.get(id(module))
        if name is None:
            return ""
        part = self.sites.part(name)
        inside = not self.decoder or name.startswith(f"{self.decoder}.")
        return part if part == "decoder" or (part == "cross" and inside) else ""

    def _barred(self, call: AttentionCall, part: str, name: str) -> Tensor:
        """(B or 1, 1, Q, K or 1) edges of one call."""
        edges, queries, keys = self.edges, call.q.shape[2], call.k.shape[2]
        length = edges.within_BSS.shape[-1]
        if queries != length or (part == "decoder" and keys != length):
            raise AtlasError(
                f"knock-out: {name}: attends from {queries} to {keys} positions, but the edges are for a "
                f"sequence of {length}; run the model once over the whole sequence, with use_cache=False"
            )
        if len(edges.within_BSS) not in (1, len(call.q)):
            raise AtlasError(
                f"knock-out: the edges are for {len(edges.within_BSS)} sequences, the batch has {len(call.q)}"
            )
        found = edges.across_BS[:, None, :, None] if part == "cross" else edges.within_BSS[:, None]
        return found.to(call.q.device)

    def _without(self, call: AttentionCall, barred_BHQK: Tensor) -> AttentionCall:
        """Mask these edges in the call. `own` is its context; rows without a cut edge keep the module's."""
        plain_BHQE = call.context()
        full = call.factored().explicit()
        if self.heads is not None:
            chosen_H = torch.zeros(full.q.shape[1], dtype=torch.bool, device=full.q.device)
            wrong = [head for head in self.heads if not 0 <= head < len(chosen_H)]
            if wrong:
                raise ConfigError(f"knock-out: head {wrong[0]} is outside 0..{len(chosen_H) - 1}")
            chosen_H[self.heads] = True
            barred_BHQK = barred_BHQK & chosen_H[:, None, None]
        touched_BHQK = barred_BHQK if full.mask is None else barred_BHQK & full.mask
        touched_BHQ1 = touched_BHQK.any(-1, keepdim=True)
        mask = ~barred_BHQK if full.mask is None else full.mask & ~barred_BHQK
        full = dataclasses.replace(
            full, mask=mask.expand(*mask.shape[:2], *full.q.shape[2:3], full.k.shape[2])
        )
        exact = full if full.softcap is None and full.sink is None else full.in_float32()
        own = torch.where(touched_BHQ1, exact.context().to(plain_BHQE.dtype), plain_BHQE)
        return dataclasses.replace(full, own=own)
