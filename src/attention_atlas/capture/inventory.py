"""Finding modules whose attention did not pass through the capture.

Attention is recognised by its operations, not by names. Either one of PyTorch's attention kernels runs, or
weights meet values. Weights are the result of a softmax (also one written as exp divided by a sum) and
results of operations that keep their number of elements: dropout, casts, masks, reshapes. They meet values in

- a matrix product, unless the other factor is a parameter (classes to expected values, a codebook);
- a product element by element that is larger than both factors, and then summed: (…,Q,K,1) · (…,1,K,D);
- a product with values that were sampled bilinearly (deformable attention).

Not attention, and not named: a softmax over classes, for sampling or in a loss; the router of a mixture of
experts, whose weights (tokens, chosen experts) scale outputs that belong to one token each, so that the
product is no larger than these; a mixture of residual streams, normalised over rows and columns in turn
(Sinkhorn, in hyper-connections). Not recognised: linear attention and other weights without a softmax, and
the pooling of one sequence with one query by an element-wise product, which looks like a router.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

SOFTMAX = ("_softmax", "_safe_softmax")
COPIES = ("cat", "stack", "clone", "_to_copy", "_unsafe_view")
PRODUCT = ("bmm", "baddbmm", "mm", "addmm", "mv")
KERNEL = (
    "_scaled_dot_product",
    "_flash_attention",
    "_efficient_attention",
    "_cudnn_attention",
    "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd",
    "flex_attention",
)
CAPTURE = __package__  # frames of this package are the capture itself


class Inventory(TorchDispatchMode):
    """While active, collects in `outside` the names of modules that bypass the capture.

    modules: {name: module}. done: set it to stop looking.
    """

    supports_higher_order_operators = True  # such as flex attention; passed through like all others

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.done = False
        self._names = {id(module): name or type(module).__name__ for name, module in modules.items()}
        self._fixed = {
            x.untyped_storage().data_ptr()
            for module in modules.values()
            for x in (*module.parameters(recurse=False), *module.buffers(recurse=False))
        }
        # Storages by what they hold: weights, weights times values, exponentials, bilinear samples.
        self._held: dict[str, WeakIdKeyDictionary] = {
            what: WeakIdKeyDictionary() for what in ("weights", "weighted", "exp", "sampled")
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.done:
            return out
        name = func.name().rpartition("::")[2].partition(".")[0]
        tensors = [x for arg in args for x in (arg if isinstance(arg, list | tuple) else (arg,))]
        tensors = [x for x in tensors if isinstance(x, Tensor)]
        if name.startswith(KERNEL):
            self._note()
        elif name in SOFTMAX:
            self._hold("weights", out)
        elif name in ("exp", "exp_"):
            self._hold("exp", out)
        elif name == "grid_sampler_2d":
            self._hold("sampled", out)
        elif name in ("div", "div_") and self._is("exp", tensors[0]) and _smaller(tensors[1:], out):
            self._hold("weights", out)
        else:
            self._follow(name, tensors, out)
        return out

    def _follow(self, name: str, tensors: list[Tensor], out: Any) -> None:
        results = [x for x in (out if isinstance(out, tuple | list) else (out,)) if isinstance(x, Tensor)]
        if name == "sum" and any(self._is("weighted", x) for x in tensors):
            self._note()
        if name in COPIES:
            for what in ("sampled", "weighted"):
                if any(self._is(what, x) for x in tensors):
                    self._hold(what, *results)
        weights = next((x for x in tensors if self._is("weights", x)), None)
        if weights is None:
            return
        if name in PRODUCT:
            # A product with a parameter is an expectation over fixed values (a head that predicts boxes).
            if not any(x.untyped_storage().data_ptr() in self._fixed for x in tensors):
                self._note()
            return
        if name == "div" and len(tensors) == 2 and 1 < tensors[1].shape[-1:].numel() == weights.shape[-1]:
            return  # sums over the queries
        if name == "mul" and any(self._is("sampled", x) for x in tensors):
            self._note()
        elif name == "mul" and len(tensors) == 2 and all(_smaller([x], out) for x in tensors):
            self._hold("weighted", out)
        # Dropout, casts, masks and reshapes of weights are weights again.
        self._hold("weights", *(x for x in results if x.numel() == weights.numel()))

    def _hold(self, what: str, *tensors: Tensor) -> None:
        for x in tensors:
            self._held[what][x.untyped_storage()] = True

    def _is(self, what: str, x: Tensor) -> bool:
        return x.untyped_storage() in self._held[what]

    def _note(self) -> None:
        name = self._module()
        if name is not None and name not in self.outside:
            self.outside.append(name)

    def _module(self) -> str | None:
        """The innermost module whose forward is running, or None inside the capture itself."""
        frame: Any = sys._getframe(1)
        while frame is not None:
            where = frame.f_globals.get("__name__", "")
            if where.startswith(CAPTURE) and where != __name__:
                return None
            owner = frame.f_locals.get("self")
            # A softmax or dropout layer belongs to the module that contains it.
            known = isinstance(owner, nn.Module) and id(owner) in self._names
            if known and next(owner.parameters(), None) is not None:
                return self._names[id(owner)]
            frame = frame.f_back
        return None


def _smaller(tensors: list[Tensor], than: Tensor) -> bool:
    return bool(tensors) and all(x.numel() < than.numel() for x in tensors)
