"""The Triton kernel of one_pass.py: context, log-sum-exp, entropy and group sums in one pass over the keys.

Online softmax by blocks of keys as in Dao 2023 (FlashAttention-2), algorithm 1. All sums are relative to the
running maximum m of score·log₂e: with t = score·log₂e − m they are l = Σ 2^t, Σ 2^t·t for the entropy,
Σ 2^t·M for the groups and Σ 2^t·V. A new maximum rescales all of them.

Groups are mostly long runs of keys (an image, a prompt). The keys of a run share one row of M, so that its
Σ 2^t·M is its l times that row, and costs nothing in the loop; only other blocks need a product with M.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Triton's interpreter (TRITON_INTERPRET=1, for tests on a CPU) has no matrix product for bfloat16.
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def _dot(a, b, c, PRECISION: tl.constexpr):
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, c, input_precision=PRECISION)


@triton.jit
def _blocks(
    acc, sums, m, l, tilted, q, k_at, v_at, member_at, mask_at, first, last, at_q, width_ok, value_ok,
    stride_k, stride_v, stride_mask, queries, keys, scale,
    CAUSAL: tl.constexpr, EDGE: tl.constexpr, MASK: tl.constexpr, CONTEXT: tl.constexpr,
    ENTROPY: tl.constexpr, GROUPS: tl.constexpr, D_FULL: tl.constexpr, E_FULL: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Add the blocks of keys from `first` to `last`. EDGE: some of their keys may be hidden or not exist.

    GROUPS 0: without `sums`. scale > 0.
    """
    at = tl.arange(0, BLOCK_K)
    for start in tl.range(first, last, BLOCK_K, num_stages=STAGES):
        at_k = start + at
        exists = at_k < keys
        rows_k = k_at + (start + at[None, :]).to(tl.int64) * stride_k
        if EDGE:
            k = tl.load(rows_k, mask=exists[None, :] & width_ok[:, None], other=0.0)
        elif D_FULL:
            k = tl.load(rows_k)
        else:
            k = tl.load(rows_k, mask=width_ok[:, None], other=0.0)
        score = _dot(q, k, tl.zeros([q.shape[0], BLOCK_K], tl.float32), PRECISION)
        if EDGE:
            visible = exists[None, :] & (at_q[:, None] < queries)
            if CAUSAL:
                visible = visible & (at_k[None, :] <= at_q[:, None])
            if MASK:
                shown = tl.load(mask_at + at_k[None, :] * stride_mask, mask=visible, other=0)
                visible = visible & (shown != 0)
            score = tl.where(visible, score, float("-inf"))
        top = tl.maximum(m, tl.max(score, 1) * scale)
        # A row that has seen no key yet has no maximum; 0 in its place avoids −inf − −inf.
        base = tl.where(top == float("-inf"), 0.0, top) if EDGE else top
        rescale = tl.exp2(m - base)
        t = score * scale - base[:, None]
        p = tl.exp2(t)
        if ENTROPY:
            shift = (tl.where(l > 0, m, base) - base) * l
            term = p * (tl.where(visible, t, 0.0) if EDGE else t)
            tilted = rescale * (tilted + shift) + tl.sum(term, 1)
        l = l * rescale + tl.sum(p, 1)
        m = top
        if GROUPS:
            # Two bfloat16 halves keep 16 bits of p; membership is exact in any type.
            high = p.to(tl.bfloat16)
            low = (p - high.to(tl.float32)).to(tl.bfloat16)
            rows_m = member_at + (start + at[:, None]) * GROUPS + tl.arange(0, GROUPS)[None, :]
            if EDGE:
                member = tl.load(rows_m, mask=exists[:, None], other=0.0)
            else:
                member = tl.load(rows_m)
            sums = _dot(high, member, sums * rescale[:, None], "ieee")
            sums = _dot(low, member, sums, "ieee")
        if CONTEXT:
            rows_v = v_at + (start + at[:, None]).to(tl.int64) * stride_v
            if EDGE:
                v = tl.load(rows_v, mask=exists[:, None] & value_ok[None, :], other=0.0)
            elif E_FULL:
                v = tl.load(rows_v)
            else:
                v = tl.load(rows_v, mask=value_ok[None, :], other=0.0)
            acc = _dot(p.to(v.dtype), v, acc * rescale[:, None], PRECISION)
    return acc, sums, m, l, tilted


@triton.jit
def attention(
    q_at, k_at, v_at, mask_at, member_at, runs_at, rows_at, out_at, lse_at, entropy_at, mass_at,
    q_b, q_h, q_q, k_b, k_h, k_k, v_b, v_h, v_k, mask_b, mask_h, mask_q, mask_k, member_b,
    out_b, out_h, out_q,
    heads, queries, keys, groups, runs, runs_b, scale,
    D: tl.constexpr, E: tl.constexpr, REPEAT: tl.constexpr, CAUSAL: tl.constexpr, MASK: tl.constexpr,
    CONTEXT: tl.constexpr, ENTROPY: tl.constexpr, GROUPS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_Q queries of one head. GROUPS: width of `member` (0: no groups), of which the first
    `groups` are written. runs: of blocks of keys; runs_at holds (start, end, whether all its keys are in the
    same groups) for each, rows_at its row of `member`, runs_b is 0 if the batch shares them. scale: of the
    score, times log₂e. REPEAT: query heads per key head. STAGES: of the loop without groups."""
    # The last queries of a causal call see the most keys: start with them.
    block = tl.num_programs(0) - 1 - tl.program_id(0) if CAUSAL else tl.program_id(0)
    batch, head = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    at_q = block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    at_d, at_e = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    is_query, width_ok, value_ok = at_q < queries, at_d < D, at_e < E
    wide_q = at_q.to(tl.int64)
    rows_q = q_at + batch * q_b + head * q_h + wide_q[:, None] * q_q + at_d[None, :]
    q = tl.load(rows_q, mask=is_query[:, None] & width_ok[None, :], other=0.0)
    k_at += batch * k_b + (head // REPEAT) * k_h + at_d[:, None]
    v_at += batch * v_b + (head // REPEAT) * v_h + at_e[None, :]
    member_at += batch * member_b
    mask_at += batch * mask_b + head * mask_h + wide_q[:, None] * mask_q

    acc = tl.zeros([BLOCK_Q, BLOCK_E], tl.float32)
    sums = tl.zeros([BLOCK_Q, GROUPS if GROUPS else 16], tl.float32)
    m = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    l = tl.zeros([BLOCK_Q], tl.float32)
    tilted = tl.zeros([BLOCK_Q], tl.float32)
    # Blocks in which every query sees every key need no mask; the others follow.
    end = tl.minimum(keys, (block + 1) * BLOCK_Q) if CAUSAL else keys
    full = 0
    if not MASK:
        full = tl.minimum(keys, block * BLOCK_Q) if CAUSAL else keys
        full = full // BLOCK_K * BLOCK_K
        if GROUPS:
            for run in range(runs):
                at_run = batch * runs_b + run
                first = tl.load(runs_at + at_run * 3)
                last = tl.maximum(tl.minimum(tl.load(runs_at + at_run * 3 + 1), full), first)
                middle = tl.where(tl.load(runs_at + at_run * 3 + 2) != 0, last, first)
                row = tl.load(rows_at + at_run * GROUPS + tl.arange(0, GROUPS))
                acc, _, top, sum_run, tilted_run = _blocks(
                    acc, sums, m, tl.zeros_like(l), tl.zeros_like(l), q, k_at, v_at, member_at, mask_at,
                    first, middle, at_q, width_ok, value_ok, k_k, v_k, mask_k, queries, keys, scale,
                    CAUSAL, False, MASK, CONTEXT, ENTROPY, 0, D == BLOCK_D, E == BLOCK_E, PRECISION, BLOCK_K,
                    STAGES,
                )  # fmt: skip
                base = tl.where(top == float("-inf"), 0.0, top)
                shift = tl.where(l > 0, m, base) - base
                rescale = tl.exp2(shift)
                tilted = rescale * (tilted + shift * l) + tilted_run
                l = rescale * l + sum_run
                sums = rescale[:, None] * sums + sum_run[:, None] * row[None, :]
                acc, sums, m, l, tilted = _blocks(
                    acc, sums, top, l, tilted, q, k_at, v_at, member_at, mask_at,
                    middle, last, at_q, width_ok, value_ok, k_k, v_k, mask_k, queries, keys, scale,
                    CAUSAL, False, MASK, CONTEXT, ENTROPY, GROUPS, D == BLOCK_D, E == BLOCK_E, PRECISION,
                    BLOCK_K, 2,
                )  # fmt: skip
        else:
            acc, sums, m, l, tilted = _blocks(
                acc, sums, m, l, tilted, q, k_at, v_at, member_at, mask_at, 0, full, at_q, width_ok, value_ok,
                k_k, v_k, mask_k, queries, keys, scale, CAUSAL, False, MASK, CONTEXT, ENTROPY,
                0, D == BLOCK_D, E == BLOCK_E, PRECISION, BLOCK_K, STAGES,
            )  # fmt: skip
    acc, sums, m, l, tilted = _blocks(
        acc, sums, m, l, tilted, q, k_at, v_at, member_at, mask_at, full, end, at_q, width_ok, value_ok,
        k_k, v_k, mask_k, queries, keys, scale, CAUSAL, True, MASK, CONTEXT, ENTROPY,
        GROUPS, D == BLOCK_D, E == BLOCK_E, PRECISION, BLOCK_K, 2,
    )  # fmt: skip

    # A query that sees nothing: lse −inf, everything else 0.
    some = l > 0
    inverse = tl.where(some, 1.0 / tl.where(some, l, 1.0), 0.0)
    bits = tl.log2(tl.where(some, l, 1.0))
    row = tl.program_id(1).to(tl.int64) * queries + wide_q
    LN2: tl.constexpr = 0.6931471805599453
    tl.store(lse_at + row, tl.where(some, (m + bits) * LN2, float("-inf")), mask=is_query)
    if ENTROPY:
        entropy = tl.maximum((bits - tilted * inverse) * LN2, 0.0)
        tl.store(entropy_at + row, entropy, mask=is_query)
    if GROUPS:
        at_g = tl.arange(0, GROUPS)
        where = mass_at + row[:, None] * groups + at_g[None, :]
        tl.store(where, sums * inverse[:, None], mask=is_query[:, None] & (at_g < groups)[None, :])
    if CONTEXT:
        where = out_at + batch * out_b + head * out_h + wide_q[:, None] * out_q + at_e[None, :]
        out = (acc * inverse[:, None]).to(out_at.dtype.element_ty)
        tl.store(where, out, mask=is_query[:, None] & value_ok[None, :])
