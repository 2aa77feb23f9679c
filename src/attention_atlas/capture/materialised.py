"""Statistics from the attention matrix itself, by definition: whole or in blocks of query rows.

The reference for the fused back end, and its fallback where a statistic is not separable (entropy
under a bias that depends on the query) or the score is not a dot product.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from attention_atlas.capture.projection import projected_norm, summed_norm
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.want import Want

BLOCK_BYTES = 2**26


def select_rows(call: AttentionCall, rows: Tensor | slice) -> AttentionCall:
    """The same attention for some queries: `rows` is a slice, or (B,R) positions."""
    length = call.q.shape[-2]
    call = call.explicit()
    mask = call.mask
    return dataclasses.replace(
        call,
        q=_take(call.q, rows, length),
        mask=None if mask is None else _take(mask, rows, length),
        bias=None if call.bias is None else _take(call.bias, rows, length),
    )


def select_columns(call: AttentionCall, columns_BS: Tensor) -> AttentionCall:
    """The same scores for some keys, (B,S) positions. Normalise with the lse over all keys."""
    keys = call.k.shape[-2]
    call = call.explicit()
    mask = call.mask

    def take(x: Tensor) -> Tensor:
        while x.ndim < 4:
            x = x[None]
        return _take(x.transpose(2, 3), columns_BS, keys).transpose(2, 3)

    return dataclasses.replace(
        call,
        k=_take(call.k, columns_BS, keys),
        v=_take(call.v, columns_BS, keys),
        mask=None if mask is None else take(mask),
        bias=None if call.bias is None else take(call.bias),
    )


def _take(x: Tensor, rows: Tensor | slice, length: int) -> Tensor:
    """Rows of (B or 1, H or 1, Q or 1, n); an axis Q of length 1 is broadcast."""
    while x.ndim < 4:
        x = x[None]
    if x.shape[-2] != length:
        return x
    if isinstance(rows, slice):
        return x[:, :, rows]
    x = x.expand(len(rows), *x.shape[1:])
    index = rows[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[-1])
    return x.gather(2, index)


def from_matrix(
    call: AttentionCall, want: Want, weight_HDM: Tensor | None, block_bytes: int | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """All requested statistics of one call, and the context. `call` is factored, in the precision to use.

    block_bytes: None forms the whole matrix; else as many query rows at a time as fit.
    """
    batch, heads, length = call.q.shape[:3]
    keys = call.k.shape[-2]
    block = max(1, length)
    if block_bytes is not None:
        row = batch * heads * keys * call.q.element_size()
        block = min(max(1, block_bytes // max(1, row)), block)
    f_BHK = None
    if want.any("norm_mass"):
        assert weight_HDM is not None
        f_BHK = projected_norm(call.v, weight_HDM)
    parts: list[dict[str, Tensor]] = []
    contexts = []
    received = call.q.new_zeros(batch, heads, keys)
    for start in range(0, max(1, length), block):
        part = select_rows(call, slice(start, start + block)) if block < length else call
        score = part.scores()
        lse = torch.logsumexp(score, -1)
        attn = torch.exp(score - lse[..., None])
        # A query that sees nothing has lse −inf: −inf − −inf is NaN, and its weights are 0.
        attn = attn.masked_fill(torch.isneginf(lse)[..., None], 0.0)
        contexts.append(attn @ part.v)
        counted = attn
        if want.queries_BQ is not None:
            counted = attn * want.queries_BQ[:, None, start : start + block, None]
        received += counted.sum(-2)
        parts.append(_per_query(attn, lse, want, f_BHK))
    values = {name: torch.cat([part[name] for part in parts], 2) for name in parts[0]}
    context = torch.cat(contexts, 2)
    if "received" in want:
        values["received"] = received
    if "head_norm" in want:
        assert weight_HDM is not None
        values["head_norm"] = projected_norm(context, weight_HDM)
    values |= chosen(call, want, weight_HDM)
    return values, context


def _per_query(attn: Tensor, lse: Tensor, want: Want, f_BHK: Tensor | None) -> dict[str, Tensor]:
    values = {}
    if want.member_BKG is not None:
        member_B1KG = want.member_BKG[:, None].to(attn.dtype)
        if "mass" in want:
            values["mass"] = attn @ member_B1KG
        if "norm_mass" in want:
            assert f_BHK is not None
            values["norm_mass"] = attn @ (member_B1KG * f_BHK[..., None])
    if "entropy" in want:
        values["entropy"] = -torch.xlogy(attn, attn).sum(-1)
    if "lse" in want:
        values["lse"] = lse
    if "attn" in want:
        values["attn"] = attn
    return values


def chosen(
    call: AttentionCall, want: Want, weight_HDM: Tensor | None, lse_BHQ: Tensor | None = None
) -> dict[str, Tensor]:
    """Rows, columns and pairs, each recomputed from queries and keys alone; `lse` saves a pass."""
    values: dict[str, Tensor] = {}
    if want.rows_BR is not None:
        rows_BHRK = select_rows(call, want.rows_BR).weights()
        if "rows" in want:
            values["rows"] = rows_BHRK
        if want.any("norm_rows", "norm_summed"):
            assert weight_HDM is not None
            if "norm_rows" in want:
                values["norm_rows"] = rows_BHRK * projected_norm(call.v, weight_HDM)[:, :, None]
            if "norm_summed" in want:
                values["norm_summed"] = summed_norm(rows_BHRK, call.v, weight_HDM)
    if want.columns_BS is not None and "columns" in want:
        if lse_BHQ is None:
            lse_BHQ = blocked_lse(call)
        score_BHQS = select_columns(call, want.columns_BS).scores()
        values["columns"] = _exp(score_BHQS, lse_BHQ[..., None])
    if want.pairs_BP2 is not None and "pairs" in want:
        if lse_BHQ is None:
            lse_BHQ = blocked_lse(call)
        query_BP = want.pairs_BP2[..., 0]
        lse_BHP = lse_BHQ.gather(2, query_BP[:, None].expand(-1, lse_BHQ.shape[1], -1))
        values["pairs"] = _exp(_pair_scores(call, want.pairs_BP2), lse_BHP)
    return values


def _exp(score: Tensor, lse: Tensor) -> Tensor:
    return torch.exp(score - lse).masked_fill(torch.isneginf(lse), 0.0)


def blocked_lse(call: AttentionCall, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """ln Σ exp(score), (B,H,Q), from blocks of query rows."""
    batch, heads, length = call.q.shape[:3]
    row = batch * heads * call.k.shape[-2] * call.q.element_size()
    block = max(1, block_bytes // max(1, row))
    starts = range(0, max(1, length), block)
    return torch.cat(
        [torch.logsumexp(select_rows(call, slice(s, s + block)).scores(), -1) for s in starts], 2
    )


def _pair_scores(call: AttentionCall, pairs_BP2: Tensor) -> Tensor:
    """Scores (B,H,P) of single (query, key) pairs, −inf where masked."""
    query_BP, key_BP = pairs_BP2.unbind(-1)
    if call.alignment is not None:
        rows = select_rows(call, query_BP)
        return rows.scores().gather(3, key_BP[:, None, :, None].expand(-1, call.q.shape[1], -1, 1))[..., 0]
    assert call.scale is not None

    def pick(x_BHTD: Tensor, at_BP: Tensor) -> Tensor:
        return x_BHTD.gather(2, at_BP[:, None, :, None].expand(-1, x_BHTD.shape[1], -1, x_BHTD.shape[-1]))

    score_BHP = call.cap((pick(call.q, query_BP) * pick(call.k, key_BP)).sum(-1) * call.scale)
    if call.bias is not None:
        score_BHP = score_BHP + _entries(call.bias, query_BP, key_BP)
    if call.mask is not None:
        score_BHP = score_BHP.masked_fill(~_entries(call.mask, query_BP, key_BP), float("-inf"))
    if call.is_causal:
        score_BHP = score_BHP.masked_fill((key_BP > query_BP)[:, None], float("-inf"))
    return score_BHP


def _entries(x: Tensor, query_BP: Tensor, key_BP: Tensor) -> Tensor:
    """x[b, :, query, key] as (B,H or 1,P) for x broadcastable to (B,H,Q,K)."""
    while x.ndim < 4:
        x = x[None]
    batch = torch.arange(len(query_BP), device=x.device)[:, None] * (x.shape[0] > 1)
    query, key = query_BP * (x.shape[2] > 1), key_BP * (x.shape[3] > 1)
    return x.permute(0, 2, 3, 1)[batch, query, key].transpose(1, 2)
