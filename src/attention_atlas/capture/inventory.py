"""Finding modules whose attention did not pass through the capture.

Attention is recognised by its operations: PyTorch's attention kernels, and a softmax whose result is a factor
of a matrix product. A hand-written softmax is not recognised, nor are weights that are multiplied and summed
without a matrix product.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

SOFTMAX = ("_softmax", "_safe_softmax")
PRODUCT = ("bmm", "baddbmm", "mm")
KERNEL = (
    "_scaled_dot_product",
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
        self._weights = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.done:
            return out
        name = func.name().rpartition("::")[2].partition(".")[0]
        if name.startswith(KERNEL):
            self._note()
        elif name in SOFTMAX:
            self._weights[out.untyped_storage()] = True
        elif self._weights:
            self._follow(name, args, out)
        return out

    def _follow(self, name: str, args: tuple[Any, ...], out: Any) -> None:
        tensors = [x for x in args if isinstance(x, Tensor)]
        weights = next((x for x in tensors if x.untyped_storage() in self._weights), None)
        if weights is None:
            return
        if name in PRODUCT:
            # A product with a parameter is an expectation over fixed values (a head that predicts boxes).
            if not any(x.untyped_storage().data_ptr() in self._fixed for x in tensors):
                self._note()
            return
        # Dropout, casts, masks and reshapes of weights are weights again.
        for result in out if isinstance(out, tuple | list) else (out,):
            if isinstance(result, Tensor) and result.numel() == weights.numel():
                self._weights[result.untyped_storage()] = True

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
