"""Finding the output projection W_O of an attention module, split by head, and norms of f_h(x)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.errors import AtlasError

# Attribute names in the model families: on the attention module itself, else on its parent.
OWN = (
    "output_projection",
    "o_proj",
    "out_proj",
    "c_proj",
    "projection",
    "projection_layer",
    "proj",
    "dense",
    "output",
)
PARENT = ("output.dense", "o_proj", "out_proj", "dense")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def output_weight_HDM(
    modules: Mapping[str, nn.Module], name: str, heads: int, size: int, override: str | None = None
) -> Tensor:
    """W_O of the attention module `name` as (H, D, model dim), without its bias.

    `override` is a dotted path relative to the module. Weights offloaded by accelerate are loaded for this
    call. Raises AtlasError when no projection is found, or when its weight has no usable values (quantised,
    on the meta device).
    """
    path, layer = output_layer(modules, name, heads, size, override)
    return _oriented(layer, _loaded(name, path, layer)).reshape(heads, size, -1)


def output_layer(
    modules: Mapping[str, nn.Module], name: str, heads: int, size: int, override: str | None = None
) -> tuple[str, Any]:
    """(path, layer) of the output projection of the attention module `name`."""
    module, parent = modules[name], modules.get(name.rpartition(".")[0])
    tried = [(module, path) for path in ([override] if override else OWN)]
    if parent is not None and not override:
        tried += [(parent, path) for path in PARENT]
    for owner, path in tried:
        layer = _linear(owner, path)
        if layer is not None:
            weight_IM = _oriented(layer, layer.weight)
            if weight_IM.ndim == 2 and weight_IM.shape[0] == heads * size:
                return path, layer
    raise AtlasError(
        f"capture: {name}: found no output projection with {heads * size} inputs; "
        "name it, for example projections={'*self_attn': 'o_proj'}, or do not request norms"
    )


class UnchangedContexts:
    """Whether contexts reach their output projection unchanged: with a gate or a norm between them, α·f(x)
    is not what the module adds. Looks at the first call of each projection."""

    def __init__(self) -> None:
        self._contexts: dict[int, list[Tensor]] = {}
        self._handles: list[Any] = []
        self._fine: set[int] = set()

    def expect(self, name: str, layer: nn.Module, context_BHQD: Tensor) -> None:
        """`layer` will be called with this context, possibly together with others (images in a row)."""
        if id(layer) in self._fine:
            return
        if id(layer) not in self._contexts:
            self._contexts[id(layer)] = []
            hook = layer.register_forward_pre_hook(lambda _, args: self._compare(name, layer, args[0]))
            self._handles.append(hook)
        self._contexts[id(layer)].append(context_BHQD.detach().transpose(1, 2).flatten(2))

    def _compare(self, name: str, layer: nn.Module, given: Tensor) -> None:
        contexts, self._contexts[id(layer)] = self._contexts[id(layer)], []
        self._fine.add(id(layer))
        if sum(x.numel() for x in contexts) != given.numel():
            return  # split differently
        whole = torch.cat(contexts, 1).reshape(-1).to(given)
        error = (whole - given.detach().reshape(-1)).abs().max() if whole.numel() else whole.sum()
        if float(error) > 0.02 * float(whole.abs().max() if whole.numel() else 1.0):
            raise AtlasError(
                f"capture: {name}: its context is changed before its output projection (a gate, a norm), so "
                "that norms would be wrong; do not request them for this module"
            )

    def done(self) -> None:
        """Remove the hooks."""
        while self._handles:
            self._handles.pop().remove()
        self._contexts.clear()


def _linear(owner: nn.Module, path: str) -> Any:
    """The linear layer at `path`, or None when there is none."""
    try:
        layer = owner.get_submodule(path)
    except AttributeError:
        return None
    is_conv1d = type(layer).__name__ == "Conv1D" and isinstance(getattr(layer, "weight", None), Tensor)
    return layer if isinstance(layer, nn.Linear) or is_conv1d else None


def _oriented(layer: nn.Module, weight: Tensor) -> Tensor:
    """The weight as (inputs, outputs), as transformers' Conv1D keeps it."""
    return weight.T if isinstance(layer, nn.Linear) else weight


def _loaded(name: str, path: str, layer: Any) -> Tensor:
    weight: Tensor = layer.weight
    if weight.is_meta and hasattr(layer, "_hf_hook"):
        from accelerate.utils import align_module_device

        # The layer has not run yet: its hook loads the weight from memory or disk, and frees it.
        with align_module_device(layer):
            weight = layer.weight
    if weight.is_meta:
        raise AtlasError(
            f"capture: {name}: the weight of its output projection '{path}' is on the meta device; load it "
            "onto a device, or do not request norms"
        )
    if weight.dtype not in FLOATS:
        raise AtlasError(
            f"capture: {name}: the weight of its output projection '{path}' is quantised ({weight.dtype}); "
            "load the model in floating point, or do not request norms"
        )
    return weight.detach()


def projected_norm(x_BHTD: Tensor, weight_HDM: Tensor) -> Tensor:
    """‖x_h W_O^h‖ per position, (B,H,T), through the D×D Gram matrix: never forms (B,H,T,model dim)."""
    gram_HDD = torch.einsum("hdm,hem->hde", weight_HDM, weight_HDM)
    square_BHT = torch.einsum("bhtd,hde,bhte->bht", x_BHTD, gram_HDD, x_BHTD)
    # Rounding may leave −1e-9 for a vector that the projection maps to 0.
    return square_BHT.clamp(min=0).sqrt()


def summed_norm(rows_BHRK: Tensor, v_BHKD: Tensor, weight_HDM: Tensor) -> Tensor:
    """‖Σ_h α_h f_h(x_j)‖ for each chosen row and key, (B,R,K). `v` has as many heads as `rows`.

    For one row α is multiplied into the values and one matrix product gives the sum. More rows share one H×H
    matrix of ⟨f_h, f_g⟩ per key, in blocks of keys, so that (K, H, model dim) is never whole in memory.
    """
    batch, heads, rows, keys = rows_BHRK.shape
    if rows == 1:
        weighted_BHKD = rows_BHRK[:, :, 0, :, None] * v_BHKD
        total_BKM = torch.einsum("bhkd,hdm->bkm", weighted_BHKD, weight_HDM)
        return total_BKM.norm(dim=-1)[:, None]
    out_BRK = rows_BHRK.new_empty(batch, rows, keys)
    block = max(1, 2**24 // (heads * weight_HDM.shape[-1]))
    for b in range(batch):
        for start in range(0, keys, block):
            at = slice(start, start + block)
            f_KHM = torch.einsum("hkd,hdm->khm", v_BHKD[b, :, at], weight_HDM)
            gram_KHH = f_KHM @ f_KHM.transpose(1, 2)
            alpha_KRH = rows_BHRK[b, :, :, at].permute(2, 1, 0)
            square_KR = ((alpha_KRH @ gram_KHH) * alpha_KRH).sum(-1)
            out_BRK[b, :, at] = square_KR.clamp(min=0).sqrt().T
    return out_BRK
