"""Attention knock-out between modalities by layer window (Geva et al. 2023, section 5; here for the phases of
Wei et al. 2025): in layers a..b no text position may attend to the image; by how much does the caption's
probability fall? If it falls, these layers carry information from the image to the text.

The image and the prompt are embedded once; only the decoder is rerun for each window.
Axes: B samples, S positions, D width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError, ConfigError, did_you_mean

if TYPE_CHECKING:
    from attention_atlas.models.vlm.loaded import LoadedVlm

PARTS = ("text", "image")
PLAIN, OTHER = "plain", "another image"


@dataclass(frozen=True)
class Block:
    """Queries of one modality may not attend to keys of another in layers first..last (both included). A
    token always sees itself and a preceding BOS. `query`, `key`: text | image; as a query BOS counts as
    text."""

    query: str
    key: str
    first: int
    last: int

    @property
    def name(self) -> str:
        return f"{self.query} → {self.key} | {self.first}-{self.last}"


def windows(blocks: Sequence[str], layers: int, width: int, stride: int = 1) -> list[Block]:
    """For each block 'text → image': every window of `width` layers, and all layers. Raises ConfigError for
    an unknown block or a width that exceeds the model's layers."""
    if not 1 <= width <= layers or stride < 1:
        raise ConfigError(
            f"conf/study: knockout: width {width}, stride {stride}: the model has {layers} layers"
        )
    out = []
    for name in blocks:
        query, _, key = (part.strip() for part in name.partition("→"))
        for part in (query, key):
            if part not in PARTS:
                known = [f"{q} → {k}" for q in PARTS for k in PARTS]
                raise ConfigError(f"conf/study: knockout: '{name}' is not a block{did_you_mean(name, known)}")
        spans = [(a, a + width - 1) for a in range(0, layers - width + 1, stride)]
        spans += [] if (0, layers - 1) in spans else [(0, layers - 1)]
        out += [Block(query, key, a, b) for a, b in spans]
    return out


def decoder_call(loaded: LoadedVlm, inputs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the decoder in the model's own pass: `inputs_embeds` (B,S,D), word embeddings with the
    image's positions filled in; mask, positions and whatever else the family passes on."""
    import torch

    seen: list[dict[str, Any]] = []

    class Enough(Exception):
        """Ends the forward pass before the decoder runs."""

    def keep(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append({} if args else kwargs)
        raise Enough

    handle = loaded.language_model.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad(), contextlib.suppress(Enough):
            loaded.model(**inputs, use_cache=False)
    finally:
        handle.remove()
    if not seen or seen[0].get("inputs_embeds") is None:
        raise AtlasError(f"{loaded.name}: knock-out: the decoder is not given inputs_embeds")
    return seen[0] | {"inputs_embeds": seen[0]["inputs_embeds"].detach(), "use_cache": False}


@contextlib.contextmanager
def knocked_out(loaded: LoadedVlm, roles: Sequence[Sequence[str]], block: Block | None) -> Iterator[None]:
    """Context manager: the decoder runs with the block, or (None) as it is."""
    from attention_atlas.capture import knockout

    if block is None:
        yield
        return
    edges = knockout.cut_edges(roles, block.query, block.key)
    with knockout.knocked_out(loaded.model, edges, range(block.first, block.last + 1)):
        yield


@contextlib.contextmanager
def kept(loaded: LoadedVlm, outputs: list[Any]) -> Iterator[None]:
    """Context manager: append the output of each decoder layer to `outputs`."""
    with contextlib.ExitStack() as hooks:
        for layer in loaded.decoder_layers:
            hooks.enter_context(
                layer.register_forward_hook(lambda module, args, output: outputs.append(output))
            )
        yield


@contextlib.contextmanager
def replayed(loaded: LoadedVlm, outputs: Sequence[Any]) -> Iterator[None]:
    """Context manager: the first decoder layers return these outputs without computing."""
    layers = loaded.decoder_layers[: len(outputs)]
    # In a model on several devices, each layer has its own forward (accelerate).
    own = [layer.__dict__.get("forward") for layer in layers]
    for layer, output in zip(layers, outputs):
        layer.forward = lambda *_, output=output, **__: output
    try:
        yield
    finally:
        for layer, forward in zip(layers, own):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def block_log_probs(
    loaded: LoadedVlm,
    call: dict[str, Any],
    inputs: dict[str, Any],
    spans: Sequence[tuple[int, int]],
    roles: Sequence[Sequence[str]],
    blocks: Sequence[Block],
) -> list[list[float]]:
    """`text_log_prob` without a block, then with each; the layers before a block are computed once.

    call: the result of `decoder_call` for these inputs."""
    outputs: list[Any] = []
    with kept(loaded, outputs):
        rows = [text_log_prob(loaded, call, inputs, spans, roles)]
    for block in blocks:
        with replayed(loaded, outputs[: block.first]):
            rows.append(text_log_prob(loaded, call, inputs, spans, roles, block))
    return rows


def text_log_prob(
    loaded: LoadedVlm,
    call: dict[str, Any],
    inputs: dict[str, Any],
    spans: Sequence[tuple[int, int]],
    roles: Sequence[Sequence[str]],
    block: Block | None = None,
) -> list[float]:
    """Σ log p of each sample's text [start, stop), in nats, with the block or (None) without."""
    import torch
    from torch.nn import functional as F

    with torch.no_grad(), knocked_out(loaded, roles, block):
        hidden_BSD = loaded.language_model(**call).last_hidden_state
        out = []
        for b, (start, stop) in enumerate(spans):
            # Already after the final norm; only the rows that predict the text go through the output matrix.
            logits_TV = loaded.unembed(hidden_BSD[b, start - 1 : stop - 1], normalise=False)
            log_TV = F.log_softmax(logits_TV.float(), -1)
            ids_T1 = inputs["input_ids"][b, start:stop, None].to(log_TV.device)
            out.append(float(log_TV.gather(-1, ids_T1).sum()))
    return out
