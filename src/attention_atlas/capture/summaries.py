"""Summaries of captured statistics: quadrants between modalities, with or without sinks, and two baselines.

Directions are named "from → to": from the query (the attending position) to the key (the attended position).
Arrays are those of one example: L layer, H head, Q query, K key, G group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attention_atlas.errors import AtlasError, did_you_mean


def quadrants(
    mass_LHQG: np.ndarray, groups: Sequence[str], query_roles: Sequence[str]
) -> dict[str, np.ndarray]:
    """{"text → image": (L,H), ...}: for each role, the mean over its queries of their mass on each group.

    Padding is excluded. The values of one role sum to 1 if the groups cover every key exactly once.
    """
    roles = np.asarray(query_roles)
    if mass_LHQG.shape[2:] != (len(roles), len(groups)):
        raise AtlasError(
            f"quadrants: mass has shape {mass_LHQG.shape} for {len(roles)} queries and {len(groups)} groups"
        )
    return {
        f"{role} → {group}": mass_LHQG[:, :, roles == role, g].mean(-1)
        for role in dict.fromkeys(roles.tolist())
        if role != "pad"
        for g, group in enumerate(groups)
    }


def without_sinks(
    mass_LHQG: np.ndarray, groups: Sequence[str], sinks: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """The mass without the groups `sinks` (e.g. bos, special), renormalised: m_g / (1 − Σ sinks). NaN where a
    query attends to sinks only."""
    for name in sinks:
        if name not in groups:
            raise AtlasError(f"sinks: no group '{name}'{did_you_mean(name, groups)}")
    is_sink = np.array([name in sinks for name in groups])
    rest_LHQ1 = 1 - mass_LHQG[..., is_sink].sum(-1, keepdims=True)
    kept = mass_LHQG[..., ~is_sink]
    out = np.full(kept.shape, np.nan, kept.dtype)
    np.divide(kept, rest_LHQ1, out=out, where=rest_LHQ1 > 1e-6)
    return out, [name for name in groups if name not in sinks]


def entropy_without(entropy_LHQ: np.ndarray, columns_LHQS: np.ndarray) -> np.ndarray:
    """Entropy in nats of the weights without the captured `columns` (the sinks), renormalised.

    With m the sinks' mass, p' = p / (1 − m) and H' = (H + Σ_sinks p ln p) / (1 − m) + ln(1 − m).
    NaN where a query attends to sinks only.
    """
    mass_LHQ = columns_LHQS.sum(-1)
    logs = np.log(columns_LHQS, out=np.zeros_like(columns_LHQS), where=columns_LHQS > 0)
    rest = 1 - mass_LHQ
    safe = np.where(rest > 1e-6, rest, np.nan)
    # Rounding can make the difference of nearly equal numbers negative.
    return np.maximum((entropy_LHQ + (columns_LHQS * logs).sum(-1)) / safe + np.log(safe), 0.0)


def sink_keys(received_LHK: np.ndarray, factor: float = 10.0) -> np.ndarray:
    """Positions that receive at least `factor` times the mean key's attention, over all layers and heads."""
    received_K = received_LHK.mean((0, 1))
    return np.flatnonzero(received_K >= factor * received_K.mean())


def rollout(attn_LHQK: np.ndarray, residual: float = 0.5) -> np.ndarray:
    """Attention rollout (Q,K) from the last layer's positions to the input's (Abnar and Zuidema 2020, §3).

    Averages heads, adds the residual connection as `residual` · I + (1 − residual) · A with rows summing to
    1, and multiplies layers. For self-attention (Q = K). A query that sees nothing keeps its own position.
    """
    layers, _, queries, keys = attn_LHQK.shape
    if queries != keys:
        raise AtlasError(f"rollout: needs self-attention, but there are {queries} queries and {keys} keys")
    total_QK = np.eye(keys)
    for layer in range(layers):
        mixed = residual * np.eye(keys) + (1 - residual) * attn_LHQK[layer].mean(0)
        total_QK = mixed / mixed.sum(-1, keepdims=True) @ total_QK
    return total_QK


def raw_attention(attn_LHQK: np.ndarray, layer: int = -1) -> np.ndarray:
    """The baseline for rollout: one layer's attention, averaged over heads, (Q,K)."""
    return attn_LHQK[layer].mean(0)
