"""MAC: a chain of control, read and write units that answers a question in steps (Hudson and Manning 2018).

One step t of the chain, d-dimensional throughout (with the paper's equation numbers):

    control  q_t = tanh(W_t q + b_t); cq = W[c, q_t]; a = softmax over words of w·f(cq, cw); c = Σ a cw  c1-c3
    read     I = ELU(W[(W m) ∘ (W k), W k]); a = softmax over regions of w·ELU(f(c, I)); r = Σ a k     r1-r3
    write    m = W[r, m]                                                                                w1

f is the element-wise form of an alignment (`Alignment.elementwise`): the dot product gives c ∘ I, as in MAC.
"Understanding Attention for Vision-and-Language Tasks" (eq. 10) replaces it in the read unit; with
`control_alignment` the control unit also gets an alignment of the same kind, as in the public code.

Axis letters: B batch, T words, N regions or cells of a grid, D dim, C channels, A answers. Attention has one
head and one query; its layers are the steps, its kinds `control` (over words) and `read` (over regions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_atlas.alignments.base import Alignment
from attention_atlas.alignments.build import build_alignment
from attention_atlas.alignments.dot import Dot
from attention_atlas.capture.seam import attend
from attention_atlas.errors import ConfigError
from attention_atlas.language.vocabulary import PAD

KNOWLEDGE = ("regions", "grid")
Batch = Mapping[str, Tensor]


class Scorer(nn.Module):
    """score(q, k) = w · g(f(q, k)): the element-wise alignment f and a linear map to one number.

    g is ELU (`bend`) or the identity. The linear map has no bias, which would be the same for all keys.
    """

    def __init__(self, alignment: Any, dim: int, bend: bool) -> None:
        super().__init__()
        self.align = build_alignment(Dot(dim) if alignment is None else alignment, dim)
        self.to_score = nn.Linear(dim, 1, bias=False)
        self.bend = bend

    def score(self, q: Tensor, k: Tensor) -> Tensor:
        """q (...,Q,D), k (...,K,D) -> (...,Q,K), for each pair independently."""
        pairs = (*k.shape[:-2], q.shape[-2], *k.shape[-2:])
        joined = self.align.elementwise(q[..., None, :], k[..., None, :, :].expand(pairs))
        return self.to_score(F.elu(joined) if self.bend else joined)[..., 0]

    forward = score


class Scores:
    """Scores (B,1,1,K) that are already computed, as an alignment."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    def score(self, q: Tensor, k: Tensor) -> Tensor:
        return self.scores


class Step(nn.Module):
    """The attention of one step; all steps share their weights."""

    def __init__(self, kind: str, index: int) -> None:
        super().__init__()
        self.attention_kind, self.layer_index = kind, index

    def forward(
        self, q_BD: Tensor, k_BKD: Tensor, v_BKD: Tensor, mask_BK: Tensor, scorer: Scorer | Scores
    ) -> Tensor:
        q, k, v = q_BD[:, None, None], k_BKD[:, None], v_BKD[:, None]
        return attend(self, q, k, v, mask_BK[:, None, None], alignment=scorer)[:, 0, 0]


class Regions(nn.Module):
    """Knowledge from detected regions: features and boxes relative to the image -> (B,N,D)."""

    def __init__(self, feature_dim: int, dim: int) -> None:
        super().__init__()
        self.look, self.place = nn.Linear(feature_dim, dim), nn.Linear(7, dim)
        self.join, self.norm = nn.Linear(dim, dim), nn.LayerNorm(feature_dim)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        x1, y1, x2, y2 = batch["boxes_BN4"].unbind(-1)
        # The bottom of a box indicates the distance of the object; centres are shifted around 0.
        place = torch.stack(
            [x1 + x2 - 1, y1 + y2 - 1, x2 - x1, y2 - y1, 2 * y2 - 1, 2 * x1 - 1, 2 * x2 - 1], -1
        )
        seen = self.look(self.norm(batch["features_BND"])) + self.place(2 * place)
        return self.join(F.elu(seen, inplace=True)), batch["regions_BN"]


class Grid(nn.Module):
    """Knowledge from an image's cells by convolutions over `grid_BCHW` (pixels, or a network's channels).

    `stem`: channels of each convolution; `strides`: its stride s, with kernel 2s - 1 (at least 3), so that no
    pixel is skipped. The last one is 3×3, with two extra input channels for each cell's position.
    """

    def __init__(self, channels: int, stem: Sequence[int], strides: Sequence[int], dim: int) -> None:
        super().__init__()
        if len(stem) != len(strides):
            raise ConfigError(
                f"Grid: strides: {len(strides)} strides for {len(stem)} convolutions; give one for each"
            )
        self.strides = [*strides, 1]
        sizes, layers = [channels, *stem, dim], []
        for i, stride in enumerate(self.strides):
            extra = 2 if i == len(stem) else 0
            kernel = max(3, 2 * stride - 1)
            layers.append(nn.Conv2d(sizes[i] + extra, sizes[i + 1], kernel, stride, kernel // 2))
        self.convolutions = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.GroupNorm(1, size) for size in stem)

    def shape(self, grid_BCHW: Tensor) -> tuple[int, int]:
        """(rows, columns) of the cells: a convolution of stride s padded by half its kernel gives
        ceil(n / s)."""
        rows, columns = grid_BCHW.shape[2:]
        for stride in self.strides:
            rows, columns = -(-rows // stride), -(-columns // stride)
        return rows, columns

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        x = batch["grid_BCHW"]
        for convolution, norm in zip(self.convolutions, self.norms):
            x = F.elu(norm(convolution(x)))
        rows, columns = (torch.linspace(-1, 1, n, device=x.device, dtype=x.dtype) for n in x.shape[2:])
        place = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(x), -1, -1, -1)
        x = self.convolutions[-1](torch.cat([x, place], 1)).flatten(2).transpose(1, 2)
        return x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)


class Mac(nn.Module):
    """MAC network. `forward(batch) -> scores_BA`.

    batch: `ids_BT` (words, then PAD), and `features_BND`, `boxes_BN4` relative 0..1, `regions_BN` bool, or
    with `knowledge: grid` `grid_BCHW`. alignment: an alignment or its configuration, None for the dot
    product; control_alignment: use the same kind in the control unit. steps: length of the chain (4 in the
    study). multiply: m = W[r, m, r ∘ c], so that the write unit sees how well the read vector matches the
    control. tally: it also sees log Σ exp(score), the log-normaliser of the read unit's softmax, so that
    matches can be counted. plain_start: the read unit starts close to a plain comparison of control and
    knowledge (I near ELU(k), w = 1/√D) instead of a random function, and learns to attend in fewer steps.
    blind: replace all visual input by one learned vector.
    """

    def __init__(
        self,
        vocab_size: int,
        answers: int,
        feature_dim: int = 0,
        channels: int = 3,
        *,
        alignment: Any = None,
        control_alignment: bool = False,
        knowledge: str = "regions",
        dim: int = 512,
        word_dim: int = 300,
        steps: int = 4,
        dropout: float = 0.15,
        stem: Sequence[int] = (32, 48, 64),
        strides: Sequence[int] = (2, 2, 2),
        multiply: bool = False,
        tally: bool = False,
        plain_start: bool = False,
        blind: bool = False,
    ) -> None:
        super().__init__()
        if knowledge not in KNOWLEDGE:
            raise ConfigError(f"Mac: knowledge: '{knowledge}' is neither {' nor '.join(KNOWLEDGE)}")
        if dim < 2 or dim % 2 or steps < 1:
            raise ConfigError(f"Mac: dim must be even and steps at least 1, not {dim} and {steps}")
        self.knowledge, self.steps = knowledge, steps
        self.embed = nn.Embedding(vocab_size, word_dim, padding_idx=PAD)
        self.lstm = nn.LSTM(word_dim, dim // 2, batch_first=True, bidirectional=True)
        self.word, self.in_context = nn.Linear(word_dim, dim, bias=False), nn.Linear(dim, dim)
        self.blank = nn.Parameter(torch.zeros(1, 1, dim)) if blind else None
        self.see: nn.Module | None = None
        if not blind:
            if knowledge == "regions":
                self.see = Regions(feature_dim, dim)
            else:
                self.see = Grid(channels, stem, strides, dim)
        self.asked = nn.ModuleList(nn.Linear(dim, dim) for _ in range(steps))
        self.control = nn.Linear(2 * dim, dim)
        self.control_score = Scorer(alignment if control_alignment else None, dim, bend=False)
        self.remember, self.know = nn.Linear(dim, dim), nn.Linear(dim, dim)
        # W[m ∘ k, k] in two parts, because the second one is the same in every step.
        self.relate, self.relate_known = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim)
        self.read_score = Scorer(alignment, dim, bend=True)
        self.multiply, self.tally = multiply, tally
        self.write = nn.Linear((3 if multiply else 2) * dim + tally, dim)
        self.control_steps = nn.ModuleList(Step("control", t) for t in range(steps))
        self.read_steps = nn.ModuleList(Step("read", t) for t in range(steps))
        self.first_control, self.first_memory = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.answer = nn.Sequential(nn.Linear(2 * dim, dim), nn.ELU(), nn.Linear(dim, answers))
        self.seldom = nn.Parameter(torch.zeros(1))  # bias: most words are not true of a region
        self.dropout = nn.Dropout(dropout)
        self.start(plain_start)

    @torch.no_grad()
    def start(self, plain: bool) -> None:
        """Initial weights as in the authors' code, because torch's defaults are too small for a long chain.
        An alignment keeps its own initialisation. `plain`: see plain_start."""
        aligned = {id(part) for m in self.modules() if isinstance(m, Alignment) for part in m.modules()}
        for module in self.modules():
            if isinstance(module, nn.Linear) and id(module) not in aligned:
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.lstm.named_parameters():
            if "weight" in name:
                for gate in parameter.chunk(4):
                    (nn.init.orthogonal_ if "hh" in name else nn.init.xavier_uniform_)(gate)
            else:
                parameter.zero_()
                if "ih" in name:
                    parameter.chunk(4)[1].fill_(1.0)  # open forget gates
        for vector in (self.first_control, self.first_memory, self.blank):
            if vector is not None:
                nn.init.normal_(vector)
        if plain:
            for layer in (self.know, self.relate_known):
                nn.init.eye_(layer.weight)
            nn.init.xavier_uniform_(self.relate.weight, gain=0.1)  # the first memory is noise
            for scorer in (self.control_score, self.read_score):
                nn.init.constant_(scorer.to_score.weight, self.lstm.hidden_size**-0.5 / 2**0.5)

    def read_question(self, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Words without and with context, each (B,T,D), and the whole question (B,D)."""
        embedded_BTE = self.dropout(self.embed(ids_BT))
        if bool((ids_BT != PAD).all()):  # faster without packing
            out, (last, _) = self.lstm(embedded_BTE)
        else:
            lengths = (ids_BT != PAD).sum(1).clamp(min=1).cpu()
            packed = nn.utils.rnn.pack_padded_sequence(
                embedded_BTE, lengths, batch_first=True, enforce_sorted=False
            )
            out, (last, _) = self.lstm(packed)
            out, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=ids_BT.shape[1])
        words_BTD = self.in_context(out) + self.word(embedded_BTE)
        return words_BTD, self.dropout(torch.cat([last[0], last[1]], -1))

    def look(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The knowledge base (B,N,D) and its mask of real entries (B,N)."""
        if self.see is None:
            assert self.blank is not None
            known = self.blank.expand(len(batch["ids_BT"]), -1, -1)
            return known, torch.ones(known.shape[:2], dtype=torch.bool, device=known.device)
        return self.see(batch)

    def grid_shape(self, batch: Batch) -> tuple[int, int] | None:
        """(rows, columns) of the read attention, None for regions."""
        return self.see.shape(batch["grid_BCHW"]) if isinstance(self.see, Grid) else None

    def forward(self, batch: Batch, names_W: Tensor | None = None) -> Any:
        """Scores (B,A); with word ids, unless blind, also logits (B,N,W) that a word is true of a region."""
        ids_BT = batch["ids_BT"]
        words_BTD, question_BD = self.read_question(ids_BT)
        known_BND, real_BN = self.look(batch)
        known_BND = self.dropout(known_BND)
        projected_BND = self.know(known_BND)
        also_BND = self.relate_known(projected_BND)
        spoken_BT = ids_BT != PAD
        control_BD = self.first_control.expand(len(ids_BT), -1)
        memory_BD = self.first_memory.expand(len(ids_BT), -1)
        # One dropout mask for the memory of all steps (Gal and Ghahramani 2016), as in the authors' code.
        kept_BD = self.dropout(torch.ones_like(memory_BD))
        for t in range(self.steps):
            asked_BD = torch.tanh(self.asked[t](question_BD))
            sought_BD = self.control(torch.cat([control_BD, asked_BD], -1))
            control_BD = self.control_steps[t](sought_BD, words_BTD, words_BTD, spoken_BT, self.control_score)
            shared_BND = self.remember(memory_BD * kept_BD)[:, None] * projected_BND
            # In place, because the backward of ELU is then several times faster.
            related_BND = F.elu(self.relate(shared_BND) + also_BND, inplace=True)
            scorer: Scorer | Scores = self.read_score
            if self.tally:
                scores_B11N = scorer.score(control_BD[:, None, None], related_BND[:, None])
                scorer = Scores(scores_B11N)
                much_B1 = scores_B11N[:, 0, 0].masked_fill(~real_BN, float("-inf")).logsumexp(-1, True)
            found_BD = self.read_steps[t](control_BD, related_BND, known_BND, real_BN, scorer)
            found_BD = self.dropout(found_BD)
            news = [found_BD, memory_BD]
            if self.multiply:
                news.append(found_BD * control_BD)
            if self.tally:
                news.append(much_B1)
            memory_BD = self.write(torch.cat(news, -1))
        scores_BA = self.answer(torch.cat([memory_BD, question_BD], -1))
        if names_W is None or self.see is None:
            return scores_BA
        # Regions are classified in the space of the question's words.
        names_WD = self.word(self.embed(names_W)) * known_BND.shape[-1] ** -0.5
        return scores_BA, known_BND @ names_WD.T + self.seldom
