"""Norm-based attention of chosen tokens (Kobayashi et al. 2020, eq. 6; Wei et al. 2025, figure 4).

Per layer and row ‖Σ_h α_h f_h(x_j)‖, f_h(x) = (x W_V + b_V) W_O^h without the output bias: the contribution
of token j to the row's state, whereas the attention weight α alone ignores the size of its value vector. The
capture recomputes only the chosen rows, so memory is linear in the sequence length.

Axes: B samples, L layers, R rows, S positions, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from torch import Tensor

    from attention_atlas.models.vlm.loaded import LoadedVlm

ROWS = ("last image", "last prompt", "last text")
SINK_TIMES, SINK_LAYERS = 5.0, 0.5


def chosen_rows(roles: Sequence[str], start: int, stop: int) -> list[int]:
    """Positions of ROWS: the image's last, the prompt's last (it writes the first word), the text's last.
    [start, stop) is the text. Raises AtlasError for a sequence without image, prompt or text."""
    image = [i for i, role in enumerate(roles) if role == "image"]
    if not image or not 0 < start < stop <= len(roles):
        raise AtlasError(
            "norm-based attention: a sample needs image, prompt and text; see the model's template"
        )
    return [image[-1], start - 1, stop - 1]


def attention_names(loaded: LoadedVlm) -> list[str]:
    """Module names of the decoder's self-attention, first layer to last."""
    name_of = {id(module): name for name, module in loaded.model.named_modules()}
    names = []
    for layer in loaded.decoder_layers:
        if not hasattr(layer, "self_attn"):
            raise AtlasError(f"{loaded.name}: decoder layer: lacks 'self_attn'; use a LLaMA-architecture one")
        names.append(name_of[id(layer.self_attn)])
    return names


def norm_rows(
    loaded: LoadedVlm, rows_BR: Sequence[Sequence[int]], run: Callable[[], Any]
) -> tuple[Tensor, Tensor]:
    """`run` does one forward pass. Returns ‖Σ_h α_h f_h‖ and α averaged over heads, each (B,L,R,S)."""
    from attention_atlas.capture.engine import Capture

    names = attention_names(loaded)
    head, _, tail = names[0].rpartition(".0.")
    capture = Capture(
        loaded.model,
        ["norm_summed", "rows"],
        rows={"decoder": [list(row) for row in rows_BR]},
        layers=names,
        kinds={"decoder": f"{head}.*.{tail}"},
    )
    found = capture.run(run)["decoder"]
    return found.norm_summed.float(), found.rows.float().mean(2)


def sinks(attn_LRS: np.ndarray, times: float = SINK_TIMES, layers: float = SINK_LAYERS) -> np.ndarray:
    """(S,) bool: tokens that get, in at least `layers` of the layers, more than `times` the even share of
    some row's attention weight. Sinks get weight independent of the image (often BOS and a few visual
    tokens); positions after the row have weight 0 and are not counted in the even share."""
    visible_LRS = attn_LRS > 0
    even_LR1 = 1.0 / np.maximum(visible_LRS.sum(-1, keepdims=True), 1)
    often_RS = (attn_LRS > times * even_LR1).mean(0)
    return (often_RS >= layers).any(0)


def mass_by_group(
    value_LRS: np.ndarray, member_GS: np.ndarray, keep_S: np.ndarray | None = None
) -> np.ndarray:
    """Share (L,R,G) of each row's total on each group; `keep`: positions to count. A row that sees none of
    them gives NaN."""
    kept = value_LRS if keep_S is None else value_LRS * keep_S
    total_LR1 = kept.sum(-1, keepdims=True)
    out = np.full((*value_LRS.shape[:2], len(member_GS)), np.nan)
    np.divide(kept @ member_GS.T.astype(kept.dtype), total_LR1, out=out, where=total_LR1 > 0)
    return out


def even_share(value_LRS: np.ndarray, member_GS: np.ndarray, keep_S: np.ndarray | None = None) -> np.ndarray:
    """`mass_by_group` of a row spread evenly over the tokens that it sees, (L,R,G)."""
    return mass_by_group((value_LRS > 0).astype(np.float64), member_GS, keep_S)
