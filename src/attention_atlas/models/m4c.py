"""M4C (Hu et al. 2020): one transformer over the question, objects and OCR words of the image, which
decodes the answer step by step; each step is a vocabulary word or a pointer to an OCR word.

Each layer of the joint transformer has its own alignment function, shared by its heads and without a factor
1/√d (as in the alignment study's code, whose M4C this is); the question encoder keeps the scaled dot
product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.alignments.base import SwappedSelf
from attention_atlas.alignments.build import build_alignment
from attention_atlas.errors import AtlasError, ConfigError, did_you_mean
from attention_atlas.language.vocabulary import BOS, EOS, PAD
from attention_atlas.models.attention import MultiHeadAttention, causal_mask
from attention_atlas.regions.phoc import SIZE as SPELLING

Batch = dict[str, Tensor]
RARE = -3.0
MIDDLE = 0.5  # centre of colours and positions
NARROW = 256  # narrower models use another initialisation
QUIET = 0.25  # initial scale of previous words and of the spelling of OCR words, relative to other inputs
OCR_PARTS = ("ocr_spelling", "ocr_look", "ocr_place")
LOSSES = ("sigmoid", "softmax")
NEVER = -1e4  # score of a pointer to no word; see `M4C.loss`


class Block(nn.Module):
    """A transformer layer. norm_first: normalise before attention and feed-forward network, which learns
    faster with few steps; else after, as in BERT."""

    def __init__(
        self,
        dim: int,
        heads: int,
        inner: int,
        kind: str,
        index: int,
        dropout: float,
        norm_first: bool,
        alignment: Any = None,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads, kind, index, dropout, alignment)
        self.network = nn.Sequential(
            nn.Linear(dim, inner), nn.GELU(), nn.Dropout(dropout), nn.Linear(inner, dim)
        )
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.dropout, self.norm_first = nn.Dropout(dropout), norm_first

    def forward(self, x_BSD: Tensor, mask: Tensor) -> Tensor:
        first, second = self.norms
        if self.norm_first:
            x_BSD = x_BSD + self.dropout(self.attention(first(x_BSD), mask=mask))
            return x_BSD + self.dropout(self.network(second(x_BSD)))
        x_BSD = first(x_BSD + self.dropout(self.attention(x_BSD, mask=mask)))
        return second(x_BSD + self.dropout(self.network(x_BSD)))


class M4C(nn.Module):
    """A batch: `ids_BT` BOS and the words of the question, `spelling_BTP` their spelling (PHOC);
    `features_BND`, `boxes_BN4`, `regions_BN` objects; `ocr_spelling_BOP`, `ocr_look_BOL` (0..1),
    `ocr_boxes_BO4`, `ocr_BO` OCR words; `previous_BS` the output before each step S: BOS, then vocabulary
    ids, or `answers` + o for OCR word o. Boxes are relative, masks are bool.

    vocab_size: number of question words; answers: number of answer words; both include the four special ids.
    loss: sigmoid (the paper's), or softmax, which converges in fewer steps. mark_asked: OCR words that occur
    in the question (`ocr_asked_BO`) get a learned vector, so that the model need not learn to compare
    spellings. blind: hide objects and OCR words.
    """

    def __init__(
        self,
        vocab_size: int,
        answers: int,
        feature_dim: int,
        look_dim: int,
        alignment: Mapping[str, Any] | None = None,
        layers: int = 4,
        heads: int = 12,
        dim: int = 768,
        inner: int = 3072,
        text_layers: int = 3,
        steps: int = 12,
        max_text: int = 20,
        dropout: float = 0.1,
        norm_first: bool = False,
        loss: str = "sigmoid",
        mark_asked: bool = False,
        blind: bool = False,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ConfigError(f"M4C: loss: '{loss}'{did_you_mean(loss, LOSSES)}")
        self.kind_of_loss = loss
        self.answers, self.steps, self.blind, self.max_text = answers, steps, blind, max_text
        self.mark_asked = mark_asked
        self._make_inputs(vocab_size, feature_dim, look_dim, dim)
        self.previous_norm = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])  # vocabulary, read
        self.previous_place, self.previous_kind = nn.Embedding(steps, dim), nn.Embedding(2, dim)
        self.drop = nn.Dropout(dropout)
        self._make_question_encoder(text_layers, dim, heads, inner, dropout, norm_first)
        self.layers = nn.ModuleList(
            Block(
                dim,
                heads,
                inner,
                "multimodal",
                i,
                dropout,
                norm_first,
                self._alignment(alignment, dim, heads),
            )
            for i in range(layers)
        )
        self.last_norm = nn.LayerNorm(dim) if norm_first else nn.Identity()
        self.vocabulary = nn.Linear(dim, answers)
        self.pointer_query, self.pointer_key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self._start(dim)
        nn.init.constant_(self.vocabulary.bias, RARE)  # a word is rarely right

    def _make_inputs(self, vocab_size: int, feature_dim: int, look_dim: int, dim: int) -> None:
        self.words = nn.Embedding(vocab_size, dim, padding_idx=PAD)
        # A shared projection: a word has the same letters in the question and in the image.
        self.spelling = nn.Linear(SPELLING, dim, bias=False)
        self.word_places = nn.Embedding(self.max_text, dim)
        self.word_norm = nn.LayerNorm(dim)
        self.object_look, self.object_place = nn.Linear(feature_dim, dim), nn.Linear(4, dim)
        self.ocr_look, self.ocr_place = nn.Linear(look_dim, dim), nn.Linear(4, dim)
        if self.mark_asked:
            self.asked = nn.Parameter(torch.randn(dim))
        self.norms = nn.ModuleDict(
            {n: nn.LayerNorm(dim) for n in ("object_look", "object_place", *OCR_PARTS, "previous")}
        )

    def _make_question_encoder(
        self, layers: int, dim: int, heads: int, inner: int, dropout: float, norm_first: bool
    ) -> None:
        self.text_layers = nn.ModuleList(
            Block(dim, heads, inner, "question", i, dropout, norm_first) for i in range(layers)
        )

    def _start(self, dim: int) -> None:
        """BERT's standard deviation of 0.02 is for 768 units. With it, the outputs of narrow layers would
        almost vanish: these start with larger weights and with scores of size 1."""
        narrow = dim < NARROW
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and module.bias is not None and ".alignment" not in name:
                # As BERT; torch's default biases would dominate boxes and colours before normalisation.
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2 or ".alignment." in name:
                continue
            loud = any(part in name for part in (".value.", ".output.", ".network.", "pointer_"))
            std = parameter.shape[1] ** -0.5 if loud else dim**-0.5 / 2
            nn.init.normal_(parameter, std=std if narrow else 0.02)
        for module in self.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight.data[module.padding_idx])
        if narrow:
            quiet = [self.norms[name] for name in ("previous", "ocr_spelling") if name in self.norms]
            for norm in (*self.previous_norm, *quiet):
                nn.init.constant_(norm.weight, QUIET)  # type: ignore[arg-type]

    @staticmethod
    def _alignment(config: Mapping[str, Any] | None, dim: int, heads: int) -> Any:
        if config is None:
            return None
        made = build_alignment(config, dim // heads)
        return SwappedSelf(made) if made.swaps_axes("m4c") else made

    def spelled(self, spelling: Tensor) -> Tensor:
        return self.spelling(F.normalize(spelling, dim=-1))

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(x_BKD question, objects and OCR words, mask_BK, ocr_BOD the OCR words)."""
        ids_BT = self.ids(batch)
        text_mask_BT = ids_BT != PAD
        places = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        text = self.words(ids_BT) + self.spelled(batch["spelling_BTP"]) + self.word_places(places)
        text = self.drop(self.word_norm(text))
        for layer in self.text_layers:
            text = layer(text, text_mask_BT[:, None, None])
        norms = self.norms
        objects = norms["object_look"](self.object_look(F.normalize(batch["features_BND"], dim=-1)))
        objects = objects + norms["object_place"](self.object_place(batch["boxes_BN4"] - MIDDLE))
        objects = self.drop(objects * 2**-0.5)
        parts = (
            self.spelled(batch["ocr_spelling_BOP"]),
            self.ocr_look(F.normalize(batch["ocr_look_BOL"] - MIDDLE, dim=-1)),
            self.ocr_place(batch["ocr_boxes_BO4"] - MIDDLE),
        )
        ocr = sum(norms[name](part) for name, part in zip(OCR_PARTS, parts))
        if self.mark_asked:
            ocr = ocr + batch["ocr_asked_BO"][..., None] * self.asked
        ocr = self.drop(ocr * len(parts) ** -0.5)
        return self.joined(batch, text_mask_BT, text, objects, ocr)

    def ids(self, batch: Batch) -> Tensor:
        ids_BT = batch["ids_BT"]
        if ids_BT.shape[1] > self.max_text:
            raise AtlasError(
                f"M4C: a question has {ids_BT.shape[1]} words, the maximum is {self.max_text}; truncate it"
            )
        return ids_BT

    def joined(
        self, batch: Batch, text_mask_BT: Tensor, text: Tensor, objects: Tensor, ocr: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The three parts concatenated, their mask, and the OCR words alone."""
        regions_BN, ocr_BO = batch["regions_BN"], batch["ocr_BO"]
        if self.blind:
            regions_BN, ocr_BO = torch.zeros_like(regions_BN), torch.zeros_like(ocr_BO)
        return torch.cat([text, objects, ocr], 1), torch.cat([text_mask_BT, regions_BN, ocr_BO], 1), ocr

    def embed_previous(self, previous_BS: Tensor, ocr_BOD: Tensor) -> Tensor:
        """Previous outputs, embedded (B,S,D): vectors of the classifier or of OCR words."""
        vocabulary_VD = self.previous_norm[0](self.vocabulary.weight)
        read_BOD = self.previous_norm[1](ocr_BOD)
        batch = len(previous_BS)
        table = torch.cat([vocabulary_VD.expand(batch, -1, -1), read_BOD], 1)
        found = table.gather(1, previous_BS[..., None].expand(-1, -1, table.shape[-1]))
        steps = torch.arange(previous_BS.shape[1], device=previous_BS.device)
        about = self.previous_place(steps) + self.previous_kind((previous_BS >= self.answers).long())
        return found + self.drop(self.norms["previous"](about))

    def forward(self, batch: Batch, learn: bool = False) -> Tensor:
        """Scores (B,S,V+O) of each step given `previous_BS`; with `learn` the loss."""
        if learn:
            return self.loss(batch)
        return self.decode(batch, self.embed(batch), batch["previous_BS"])

    def decode(self, batch: Batch, embedded: tuple[Tensor, Tensor, Tensor], previous_BS: Tensor) -> Tensor:
        x_BKD, mask_BK, ocr_BOD = embedded
        keys, steps = x_BKD.shape[1], previous_BS.shape[1]
        if steps > self.steps:
            raise AtlasError(f"M4C: {steps} steps, the maximum is {self.steps}; truncate the answers")
        x = torch.cat([x_BKD, self.embed_previous(previous_BS, ocr_BOD)], 1)
        # Steps attend to everything before them; other positions do not attend to steps.
        mask = torch.zeros(len(x), 1, keys + steps, keys + steps, dtype=torch.bool, device=x.device)
        mask[..., :keys] = mask_BK[:, None, None]
        mask[..., keys:, keys:] = causal_mask(steps, x.device)
        for layer in self.layers:
            x = layer(x, mask)
        x = self.last_norm(x)
        step_BSD, read_BOD = x[:, keys:], x[:, keys - ocr_BOD.shape[1] : keys]
        pointer = self.pointer_query(step_BSD) @ self.pointer_key(read_BOD).transpose(1, 2)
        pointer = pointer * read_BOD.shape[-1] ** -0.5
        known_BO = mask_BK[:, keys - ocr_BOD.shape[1] :]
        return torch.cat([self.vocabulary(step_BSD), pointer.masked_fill(~known_BO[:, None], NEVER)], -1)

    def loss(self, batch: Batch) -> Tensor:
        """Mean over the steps that count (`counts_BS`): binary cross-entropy of `target_BSA` summed over
        words, as in the paper, or with loss="softmax" the negative log of the total probability of the right
        words.

        A pointer to a hidden word is not a right word, and a step without right words does not count: its
        loss would be the constant NEVER, which no update can lower."""
        scores = self(batch)
        target_BSA = batch["target_BSA"].masked_fill(scores == NEVER, 0.0)
        counts_BS = (batch["counts_BS"] & (target_BSA > 0).any(-1)).to(scores.dtype)
        if self.kind_of_loss == "softmax":
            right = scores.masked_fill(target_BSA == 0, float("-inf")).logsumexp(-1)
            # A step without right words does not count; -inf times 0 would be NaN.
            each_BS = (scores.logsumexp(-1) - right).masked_fill(counts_BS == 0, 0.0)
        else:
            each_BS = F.binary_cross_entropy_with_logits(scores, target_BSA, reduction="none").sum(-1)
        return (each_BS * counts_BS).sum() / counts_BS.sum().clamp(min=1)

    @torch.no_grad()
    def generate(self, batch: Batch, steps: int | None = None) -> Tensor:
        """Ids (B,S) of greedy decoding; PAD after EOS."""
        steps = self.steps if steps is None else steps
        embedded = self.embed(batch)
        previous = torch.full((len(batch["ids_BT"]), 1), BOS, device=batch["ids_BT"].device)
        chosen: list[Tensor] = []
        ended = torch.zeros(len(previous), dtype=torch.bool, device=previous.device)
        for _ in range(steps):
            scores = self.decode(batch, embedded, previous)[:, -1]
            scores[:, [PAD, BOS]] = NEVER
            best = scores.argmax(-1).masked_fill(ended, PAD)
            chosen.append(best)
            ended = ended | (best == EOS)
            previous = torch.cat([previous, best[:, None]], 1)
            if bool(ended.all()):
                break
        out = torch.stack(chosen, 1)
        return F.pad(out, (0, steps - out.shape[1]), value=PAD)
