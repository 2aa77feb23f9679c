"""Recovering the order of ViLT's image patches, which is random even when it keeps all of them.

transformers' ViLT samples the patches with torch.multinomial from the global generator, so the order differs
in each pass and a heat-map in sequence order is noise.

    with patch_order(model, seed=0) as patches:
        captured = capture(**inputs)
    grid_BHW = patches.grid(values_BP)              # P: positions after the image's own class token
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.capture.seam import lock_of
from attention_atlas.errors import AtlasError


class Patches:
    """index_BP2: row and column of each patch position; valid_BP: False for padding; shape: rows, columns."""

    index_BP2: Tensor
    valid_BP: Tensor
    shape: tuple[int, int]

    def grid(self, values_BP: Tensor) -> Tensor:
        """Values per patch position arranged as the image, (B, rows, columns); NaN where there is no patch.

        Extra axes are allowed: (B, ..., P) gives (B, ..., rows, columns).
        """
        self._seen()
        if values_BP.shape[-1] != self.index_BP2.shape[1] or len(values_BP) != len(self.index_BP2):
            raise AtlasError(
                f"patches: values {tuple(values_BP.shape)} for {tuple(self.index_BP2.shape[:2])} patches; "
                "leave out the text and the image's class token"
            )
        rows, columns = self.shape
        out = torch.full((*values_BP.shape[:-1], rows * columns), float("nan"), dtype=torch.float)
        for b, (index_P2, valid_P) in enumerate(zip(self.index_BP2, self.valid_BP)):
            flat = (index_P2[:, 0] * columns + index_P2[:, 1])[valid_P]
            out[b][..., flat] = values_BP[b][..., valid_P].float().cpu()
        return out.unflatten(-1, (rows, columns))

    def roles(self, text_roles: Sequence[Sequence[str]]) -> list[list[str]]:
        """Roles of the whole sequence: text, the image's class token (special), patches."""
        self._seen()
        return [
            [*text, "special", *("image" if v else "pad" for v in valid)]
            for text, valid in zip(text_roles, self.valid_BP.tolist())
        ]

    def _seen(self) -> None:
        if not hasattr(self, "index_BP2"):
            raise AtlasError("patches: the model has not run inside patch_order, or received no image")


@contextlib.contextmanager
def patch_order(model: nn.Module, seed: int = 0) -> Iterator[Patches]:
    """Record the patch order of the forward passes inside, drawn with `seed`; restores the global generator.
    Raises AtlasError for a model without ViLT's embeddings."""
    found = [m for m in model.modules() if hasattr(m, "visual_embed")]
    if len(found) != 1:
        raise AtlasError(
            f"patches: {type(model).__name__}: has {len(found)} modules with visual_embed, ViLT has one; "
            "other models keep their patches in order"
        )
    with lock_of(model):
        yield from _fixed(found[0], seed)


def _fixed(embeddings: Any, seed: int) -> Iterator[Patches]:
    patches = Patches()
    plain: Any = embeddings.visual_embed

    def visual_embed(*args: Any, **kwargs: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            x, mask, (index_BP2, shape) = plain(*args, **kwargs)
        patches.index_BP2 = index_BP2.cpu()
        patches.valid_BP = mask[:, 1:].bool().cpu()
        patches.shape = (int(shape[0]), int(shape[1]))
        return x, mask, (index_BP2, shape)

    before = vars(embeddings).get("visual_embed")
    embeddings.visual_embed = visual_embed
    try:
        yield patches
    finally:
        del embeddings.visual_embed
        if before is not None:
            embeddings.visual_embed = before
