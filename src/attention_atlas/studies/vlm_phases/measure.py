"""One forward pass over a batch with all reductions done while the layers run: no hidden state outlives its
layer, so memory is linear in the sequence length, independent of the number of layers, and never quadratic.

Axes: B samples, S positions, L layers, D width, G groups, R rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.studies.vlm_phases.contextualisation import unit_sums
from attention_atlas.studies.vlm_phases.logit_lens import decode
from attention_atlas.studies.vlm_phases.norm_attention import chosen_rows, norm_rows

if TYPE_CHECKING:
    from torch import Tensor

    from attention_atlas.models.vlm.loaded import LoadedVlm

GROUPS = ("image", "prompt", "caption")


@dataclass
class Measured:
    """sums (B,L+2,G,D): unit vectors summed by group for the embeddings, each layer's output, and the last
    one after the final norm; counts (B,G); lens {plain | normalised: per sample (L+1,N) token ids at the
    image's positions}; norm, attention (B,L,R,S) or None."""

    sums: np.ndarray
    counts: np.ndarray
    lens: dict[str, list[np.ndarray]] = field(default_factory=dict)
    norm: np.ndarray | None = None
    attention: np.ndarray | None = None


@contextlib.contextmanager
def each_state(loaded: LoadedVlm, visit: Callable[[Tensor], None]) -> Iterator[None]:
    """Call `visit` with the (B,S,D) states in order: embeddings, each layer's output, the last after the
    final norm. The logits are computed for the last position only: (S, vocabulary) is not needed here."""

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        visit(args[0] if args else kwargs["hidden_states"])

    def after(module: Any, args: Any, output: Any) -> None:
        visit(output[0] if isinstance(output, tuple) else output)

    def at_end(module: Any, args: Any, output: Any) -> None:
        visit(output.last_hidden_state)

    def last_only(module: Any, args: Any) -> Any:
        # The lens calls the same matrix with (N,D) states; the model with (B,S,D).
        return (args[0][:, -1:],) if args[0].ndim == 3 else None

    layers = loaded.decoder_layers
    handles = [layers[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [layer.register_forward_hook(after) for layer in layers]
    handles += [loaded.language_model.register_forward_hook(at_end)]
    if loaded.head is not None:
        handles += [loaded.head.register_forward_pre_hook(last_only)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def measure(
    loaded: LoadedVlm,
    inputs: dict[str, Tensor],
    roles: Sequence[Sequence[str]],
    spans: Sequence[tuple[int, int]],
    lens: Sequence[str] = ("plain", "normalised"),
    norm: bool = True,
) -> Measured:
    """`roles` and `spans` (the text's [start, stop)) of each row of `inputs`; lens: keys of Measured.lens."""
    import torch

    member_BSG = torch.zeros(len(roles), len(roles[0]), len(GROUPS), dtype=torch.bool)
    for b, (row, (start, stop)) in enumerate(zip(roles, spans)):
        for s, role in enumerate(row):
            if role == "image":
                member_BSG[b, s, 0] = True
            elif role == "text" and s < stop:
                member_BSG[b, s, 1 if s < start else 2] = True
    sums: list[np.ndarray] = []
    ids: dict[str, list[list[np.ndarray]]] = {name: [[] for _ in roles] for name in lens}
    depth = len(loaded.decoder_layers)

    def visit(hidden_BSD: Tensor) -> None:
        member = member_BSG.to(hidden_BSD.device)
        sums.append(unit_sums(hidden_BSD, member).cpu().numpy())
        if len(sums) > depth + 1:
            return  # after the final norm: the lens uses this state as the normalised last layer
        seen_BS = member[..., 0]
        for name in lens:
            unembed = partial(loaded.unembed, normalise=name == "normalised")
            found = decode(hidden_BSD[seen_BS], unembed).split(seen_BS.sum(1).tolist())
            for layers, tokens in zip(ids[name], found, strict=True):
                layers.append(tokens.numpy().astype(np.int32))

    def run() -> Any:
        with torch.no_grad(), each_state(loaded, visit):
            return loaded.model(**inputs, use_cache=False)

    out = Measured(np.empty(0), member_BSG.sum(1).numpy().astype(np.float32))
    if norm:
        rows_BR = [chosen_rows(row, *span) for row, span in zip(roles, spans)]
        found_norm, found_attention = norm_rows(loaded, rows_BR, run)
        out.norm, out.attention = found_norm.numpy(), found_attention.numpy()
    else:
        run()
    out.sums = np.stack(sums, 1)
    out.lens = {name: [np.stack(layers) for layers in rows] for name, rows in ids.items()}
    return out
