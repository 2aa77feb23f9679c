"""Checks that values are attention weights: otherwise a share or an entropy of them is meaningless."""

from __future__ import annotations

import numpy as np

from attention_atlas.errors import AtlasError

# Half precision changes the sum of a row by up to 5e-4 (float16) or 4e-3 (bfloat16).
TOLERANCE = 1e-2
REMEDY = "dump attention weights, from after the softmax, not scores"


def check_weights(
    attn_XQK: np.ndarray, where: str, *, partial: bool = False, rows_Q: np.ndarray | None = None
) -> None:
    """Raise AtlasError naming `where` unless every row (last axis) of `attn_XQK` (...,Q,K) is finite,
    non-negative, and sums to 1, or to 0 where the row sees nothing.

    partial: rows may be parts of distributions, with any sum from 0 to 1. rows_Q: (Q,) bool, the rows to
    check (padding may contain anything).
    """
    if rows_Q is not None:
        attn_XQK = attn_XQK if rows_Q.all() else attn_XQK[..., rows_Q, :]
    if not attn_XQK.size:
        return
    total = attn_XQK.sum(axis=-1)
    if not np.isfinite(total).all():
        raise AtlasError(f"{where}: contains NaN or infinite attention; dump the example again")
    lowest = float(attn_XQK.min())
    if lowest < -1e-6:
        raise AtlasError(
            f"{where}: contains negative values ({lowest:.3g}), so it is not attention; {REMEDY}"
        )
    off = total - 1 if partial else np.where(total > TOLERANCE, np.abs(total - 1), 0)
    if (off > TOLERANCE).any():
        row = tuple(int(i) for i in np.unravel_index(int(off.argmax()), off.shape))
        raise AtlasError(
            f"{where}: row {row} sums to {float(total[row]):.3g}, not to 1, so it is not a distribution; "
            f"{REMEDY}"
        )


def check_shares(share: np.ndarray, where: str) -> None:
    """Raise AtlasError naming `where` unless all values are within 0..1."""
    outside = ~((share >= -1e-6) & (share <= 1 + TOLERANCE))  # NaN too
    if outside.any():
        first = float(np.asarray(share)[outside].flat[0])
        raise AtlasError(f"{where}: {first:.3g} is not a share of attention (0 to 1); {REMEDY}")
