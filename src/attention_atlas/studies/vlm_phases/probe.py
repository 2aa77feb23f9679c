"""Which parts of study 5 a model does not support, found by trying them on one sample before the long run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError
from attention_atlas.studies.vlm_phases.knockout import block_log_probs, decoder_call, windows
from attention_atlas.studies.vlm_phases.logit_lens import caption_words, stop_words
from attention_atlas.studies.vlm_phases.measure import each_state, measure

if TYPE_CHECKING:
    from torch import Tensor

    from attention_atlas.models.vlm.loaded import LoadedVlm
    from attention_atlas.models.vlm.samples import Sample

# Largest difference between two computations of one log-probability, nats per token.
TOLERANCE = {"torch.float32": 1e-2, "torch.float16": 0.2, "torch.bfloat16": 0.5}
OTHERS = (ValueError, RuntimeError, TypeError, KeyError, AttributeError, IndexError)
LEAST_EQUAL = 0.9  # share of positions where two computations decode the same token; ties differ by rounding


def missing(loaded: LoadedVlm, samples: Sequence[Sample]) -> dict[str, str]:
    """{part: why the model or the data do not support it}; parts as in run.PARTS, and `normalised`, the
    lens after the final norm. Raises AtlasError if the model does not run on the first sample."""
    if len({s.image_id for s in samples}) < 2:
        raise AtlasError("study 5: one image only; give two, as chance compares with other images")
    found: dict[str, str] = {}
    inputs, spans, own_NV = _run(loaded, samples[0])
    roles = loaded.roles(inputs)
    if loaded.head is None:
        found["lens"] = "the model has no output matrix"
    elif not any(caption_words(s.text, stop_words()) for s in samples):
        found["lens"] = "no text has a word, stop words apart"
    elif loaded.norm is None:
        found["normalised"] = "no final norm is known of the decoder"
    tries: dict[str, Callable[[], object]] = {
        "norm": lambda: measure(loaded, inputs, roles, spans, lens=()),
        "knockout": lambda: _rerun(loaded, inputs, spans, roles, own_NV),
    }
    if not found:
        tries["normalised"] = lambda: _same_words(loaded, inputs, own_NV)
    for part, attempt in tries.items():
        try:
            attempt()
        except AtlasError as error:
            found[part] = str(error)
        except OTHERS as error:
            found[part] = f"{type(error).__name__}: {_line(error)}"
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _run(loaded: LoadedVlm, sample: Sample) -> tuple[dict[str, Any], list[tuple[int, int]], Tensor]:
    """(inputs, spans, logits (N,V) of the model's own pass at the last positions: at least those of the text
    and the one before)."""
    import inspect

    import torch

    inputs, spans = loaded.batch([sample]), loaded.text_spans([sample])
    few: dict[str, Any] = {}
    if "logits_to_keep" in inspect.signature(loaded.model.forward).parameters:
        few["logits_to_keep"] = spans[0][1] - spans[0][0] + 1
    try:
        with torch.no_grad():
            return inputs, spans, loaded.model(**inputs, **few, use_cache=False).logits[0].float()
    except OTHERS as error:
        raise AtlasError(
            f"{loaded.name}: does not run on what its processor returns ({_line(error)}); check the files of "
            "the processor, for example the number of tokens of an image"
        ) from None


def _same_words(loaded: LoadedVlm, inputs: dict[str, Any], own_NV: Tensor) -> None:
    """Raises AtlasError if the lens at the last layer does not decode the model's own output."""
    import torch

    states: list[Tensor] = []
    with torch.no_grad(), each_state(loaded, states.append):
        loaded.model(**inputs, use_cache=False)
    with torch.no_grad():
        lens_N = loaded.unembed(states[len(loaded.decoder_layers)][0, -len(own_NV) :]).argmax(-1)
    equal = float((lens_N.to(own_NV.device) == own_NV.argmax(-1)).float().mean())
    if equal < LEAST_EQUAL:
        raise AtlasError(
            "the last layer's state, after the final norm, gives other tokens than the model "
            f"at {100 * (1 - equal):.0f} % of the positions"
        )


def _rerun(
    loaded: LoadedVlm,
    inputs: dict[str, Any],
    spans: Sequence[tuple[int, int]],
    roles: Sequence[Sequence[str]],
    own_NV: Tensor,
) -> None:
    """Raises AtlasError if the decoder alone, or with its first layers replayed, gives other probabilities
    than the model, or takes no mask."""
    layers = len(loaded.decoder_layers)
    ((start, stop),) = spans
    log_TV = own_NV[start - stop - 1 : -1].log_softmax(-1)
    own = float(log_TV.gather(-1, inputs["input_ids"][0, start:stop, None].to(log_TV.device)).sum())
    call = decoder_call(loaded, inputs)
    nothing = [["text" if role == "image" else role for role in row] for row in roles]
    # A block without a key changes nothing.
    for first in {0, layers // 2}:
        blocks = [b for b in windows(["text → image"], layers, layers - first) if b.first == first]
        for (found,) in block_log_probs(loaded, call, inputs, spans, nothing, blocks):
            off = abs(found - own) / (stop - start)
            if off > TOLERANCE.get(str(loaded.model.dtype), 0.5):
                raise AtlasError(
                    f"the decoder, run again by itself, differs from the model by {off:.2g} nats per token"
                )
