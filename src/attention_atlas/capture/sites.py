"""How a capture identifies a model's attention modules: name, kind, layer, and part of the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from attention_atlas.capture.want import fits, matches

IMAGES = {"image", "video"}
# Names of attention to another sequence, for modules that do not declare it (BART, T5, Kosmos-2).
CROSS = re.compile(r"cross|encoder_attn|encdecattention|x_attn", re.IGNORECASE)


class Sites:
    """layers, kinds: as in Capture. names: {id of a module: its name in the model}."""

    def __init__(self, model: nn.Module, layers: Sequence[str], kinds: Mapping[str, str]) -> None:
        self.model, self.layers, self.kinds = model, layers, kinds
        # torch.compile wraps the module in another one, which does not appear in the model's names.
        self.modules = {_plain(name): module for name, module in model.named_modules()}
        self.names = {id(module): name for name, module in self.modules.items()}
        self._found: dict[int, tuple[str, str, int]] = {}
        self._decoder: str | None = None

    def site(self, module: nn.Module) -> tuple[str, str, int]:
        """(name, kind, layer) of an attention module."""
        found = self._found.get(id(module))
        if found is None:
            found = self._find(module)
            if id(module) in self.names:
                self._found[id(module)] = found
        return found

    def wanted(self, module: nn.Module) -> bool:
        """Whether `layers` selects this attention module."""
        name, kind, layer = self.site(module)
        return matches(self.layers, name, f"{kind}.{layer}", *self._aliases(name, layer))

    def wanted_name(self, name: str) -> bool:
        """The same for a module that does not pass through the capture."""
        return matches(self.layers, name, *self._aliases(name, self._layer(name)))

    def planned(self) -> list[str]:
        """Kinds of the modules that call the seam themselves, if selected by `layers`."""
        own = [m for m in self.modules.values() if hasattr(m, "attention_kind") and self.wanted(m)]
        return list(dict.fromkeys(self.site(module)[1] for module in own))

    def part(self, name: str) -> str:
        """ "decoder", "vision", "cross", or "" for none of them; `name` is that of an attention module.

        cross: it attends to another sequence, according to its `is_cross_attention` or its name. vision: the
        innermost transformers model around it takes images only (`input_modalities`), or a configuration in
        between is the vision part of the model's. decoder: it is in transformers' decoder (without any
        encoder in it), and the innermost model takes text; or the model generates text from both in one stack
        (GIT, Idefics). Modules of this project declare it in `attention_kind`.
        """
        module: Any = self.modules.get(name)
        own = getattr(module, "attention_kind", None)
        if own is not None:
            return {"decoder_self": "decoder", "cross": "cross"}.get(own, "")
        if getattr(module, "is_cross_attention", False) or CROSS.search(name.rpartition("layers")[2]):
            return "cross"
        inner = self._around(name)
        if not inner:
            return ""
        takes = _modalities(inner[-1])
        if takes <= IMAGES or any(self._is_vision(getattr(m, "config", None)) for m in inner):
            return "vision"
        decoder = self.decoder_name()
        inside = decoder == "" or name.startswith(f"{decoder}.")
        generates = getattr(self.model, "can_generate", lambda: False)()
        return "decoder" if inside and (takes == {"text"} or generates) else ""

    def aliases_of_kind(self, module: nn.Module) -> list[str]:
        """Names that {kind glob: value} accepts besides the kind's own."""
        name, _, layer = self.site(module)
        return self._aliases(name, layer)[:1]

    def _aliases(self, name: str, layer: int) -> list[str]:
        part = self.part(name)
        return [f"@{part}", f"@{part}.{layer}"] if part else []

    def _around(self, name: str) -> list[Any]:
        """The modules around this one, from itself to the smallest transformers model; [] without one."""
        found = []
        while True:
            module = self.modules.get(name)
            found.append(module)
            if hasattr(module, "input_modalities"):
                return found
            if not name:
                return []
            name = name.rpartition(".")[0]

    def _is_vision(self, config: Any) -> bool:
        outer = getattr(self.model, "config", None)
        parts = (getattr(outer, name, None) for name in getattr(outer, "sub_configs", ()) if "vision" in name)
        return config is not None and any(type(part) is type(config) for part in parts)

    def decoder_name(self) -> str:
        """The name of the innermost language model; "" for the model itself."""
        if self._decoder is None:
            decoder: Any = self.model
            for _ in range(4):
                inner = decoder.get_decoder() if hasattr(decoder, "get_decoder") else decoder
                if inner is None or inner is decoder or id(inner) not in self.names:
                    break
                decoder = inner
                if not getattr(getattr(decoder, "config", None), "is_encoder_decoder", False):
                    break
            self._decoder = self.names.get(id(decoder), "")
        return self._decoder

    def _layer(self, name: str) -> int:
        numbers = re.findall(r"(?<=\.)\d+(?=\.|$)", "." + name)
        return int(numbers[-1]) if numbers else 0

    def _find(self, module: nn.Module) -> tuple[str, str, int]:
        name = self.names.get(id(module)) or type(module).__name__
        layer: Any = getattr(module, "layer_index", None) if hasattr(module, "attention_kind") else None
        layer = self._layer(name) if layer is None else int(layer)
        for given, pattern in self.kinds.items():
            if any(fits(pattern, known) for known in (name, *self._aliases(name, layer))):
                return name, given, layer
        kind: Any = getattr(module, "attention_kind", None)
        if kind is None:
            numbers = list(re.finditer(r"(?<=\.)\d+(?=\.|$)", "." + name))
            kind = name
            if numbers:
                start, end = (n - 1 for n in numbers[-1].span())
                kind = f"{name[:start]}*{name[end:]}"
        return name, str(kind), layer


def _modalities(module: Any) -> set[str]:
    takes = module.input_modalities
    takes = {takes} if isinstance(takes, str) else set(takes)
    # Classes from a hub do not always declare it.
    return {"image"} if takes == {"text"} and module.main_input_name == "pixel_values" else takes


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
