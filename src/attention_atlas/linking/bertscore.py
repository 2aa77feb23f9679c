"""BERTScore F1 (Zhang et al. 2020): contextual vectors of word pieces, matched greedily by cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from attention_atlas.devices import resolve_device
from attention_atlas.errors import AtlasError, loading
from attention_atlas.language.weights import resolve_weights
from attention_atlas.linking.base import Linker


class BertScoreLinker(Linker):
    """F1 of greedy matching between a phrase and a description.

    With unit vectors x_i of the phrase's pieces and y_j of the description's and weights w:
    precision = sum_j w_j max_i x_i.y_j / sum_j w_j over the description, recall the same over the
    phrase, F1 their harmonic mean (equations 1 to 3). [CLS] and [SEP] are encoded but never matched.
    `layer` selects the hidden state (0 = embeddings, -1 = last). `idf` weights pieces by log((M+1)/(df+1))
    over the M strings of the first `prepare`; else all weights are 1. There is no baseline rescaling, because
    it is monotone and would not change the links.
    """

    measure = "F1"

    def __init__(
        self,
        name: str,
        model: str,
        layer: int = 5,
        idf: bool = False,
        batch: int = 64,
        device: str = "auto",
        tolerance: float = 1e-6,
    ) -> None:
        self.name, self.tolerance = name, tolerance
        self.layer, self.idf, self.batch, self.device = layer, idf, batch, device
        self.path = resolve_weights(model, "BertScoreLinker: model")
        self._encoder: Any = None
        self._tokenizer: Any = None
        self._vectors: dict[str, np.ndarray] = {}  # (T, D) unit rows
        self._pieces: dict[str, list[int]] = {}
        self._weights: dict[int, float] | None = None
        self._unseen = 1.0

    def prepare(self, strings: Iterable[str]) -> None:
        new = sorted(set(strings) - set(self._vectors), key=lambda s: (len(s), s))
        if not new:
            return
        self._load()
        for start in range(0, len(new), self.batch):
            self._encode(new[start : start + self.batch])
        if self.idf and self._weights is None:
            self._fit_idf(new)

    def similarity(self, phrases: Sequence[str], descriptions: Sequence[str]) -> np.ndarray:
        self.prepare([*phrases, *descriptions])
        if not phrases or not descriptions:
            return np.zeros((len(phrases), len(descriptions)))
        # Each distinct string once, so that identical labels have bit-identical scores.
        rows, columns = list(dict.fromkeys(phrases)), list(dict.fromkeys(descriptions))
        row_P = np.array([rows.index(text) for text in phrases])
        column_N = np.array([columns.index(text) for text in descriptions])
        x_RTD, weight_RT, real_RT = self._pad(rows)
        y_MSD, weight_MS, real_MS = self._pad(columns)
        (R, T, D), (M, S, _) = x_RTD.shape, y_MSD.shape
        cosine_RTMS = (x_RTD.reshape(R * T, D) @ y_MSD.reshape(M * S, D).T).reshape(R, T, M, S)
        cosine_RTMS[~real_RT] = -np.inf
        cosine_RTMS[:, :, ~real_MS] = -np.inf
        with np.errstate(invalid="ignore", divide="ignore"):
            best_RTM = np.where(real_RT[:, :, None], cosine_RTMS.max(axis=3), 0.0)
            best_RMS = np.where(real_MS, cosine_RTMS.max(axis=1), 0.0)
            recall_RM = np.einsum("rt,rtm->rm", weight_RT, best_RTM) / weight_RT.sum(1)[:, None]
            precision_RM = np.einsum("ms,rms->rm", weight_MS, best_RMS) / weight_MS.sum(1)
            score_RM = 2 * precision_RM * recall_RM / (precision_RM + recall_RM)
        # A string without word pieces has no match.
        score_RM[~real_RT.any(1)] = np.nan
        score_RM[:, ~real_MS.any(1)] = np.nan
        return score_RM[row_P][:, column_N]

    def _weigh(self, text: str) -> np.ndarray:
        weights = self._weights
        if weights is None:
            return np.ones(len(self._pieces[text]))
        return np.array([weights.get(piece, self._unseen) for piece in self._pieces[text]])

    def _pad(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(M, S, D) vectors, (M, S) weights (0 for padding) and (M, S) True for pieces."""
        longest = max(1, *(len(self._pieces[t]) for t in texts))
        dim = next(iter(self._vectors.values())).shape[1]
        vectors, weights = np.zeros((len(texts), longest, dim)), np.zeros((len(texts), longest))
        real = np.zeros((len(texts), longest), dtype=bool)
        for m, text in enumerate(texts):
            n = len(self._pieces[text])
            vectors[m, :n], weights[m, :n], real[m, :n] = self._vectors[text], self._weigh(text), True
        return vectors, weights, real

    def _fit_idf(self, documents: list[str]) -> None:
        counts: dict[int, int] = {}
        for text in documents:
            for piece in set(self._pieces[text]):
                counts[piece] = counts.get(piece, 0) + 1
        total = len(documents)
        self._weights = {p: math.log((total + 1) / (c + 1)) for p, c in counts.items()}
        self._unseen = math.log(total + 1)

    def _load(self) -> None:
        if self._encoder is not None:
            return
        from transformers import AutoModel, AutoTokenizer

        with loading(f"BertScoreLinker: model: '{self.path}'"):
            self._tokenizer = AutoTokenizer.from_pretrained(self.path)
            self._encoder = AutoModel.from_pretrained(self.path).eval()
        layers = self._encoder.config.num_hidden_layers
        if not -layers - 1 <= self.layer <= layers:
            raise AtlasError(
                f"BertScoreLinker: layer: {self.layer} is not in the model; choose 0 (embeddings) to {layers}"
            )
        self._encoder.to(resolve_device(self.device, "link"))

    def _encode(self, texts: list[str]) -> None:
        import torch

        batch = self._tokenizer(
            texts, padding=True, truncation=True, return_tensors="pt", return_special_tokens_mask=True
        )
        special_BT = batch.pop("special_tokens_mask").numpy().astype(bool)  # true for padding too
        with torch.inference_mode():
            output = self._encoder(**batch.to(self._encoder.device), output_hidden_states=True)
        hidden_BTD = output.hidden_states[self.layer].double().cpu().numpy()
        ids_BT = batch["input_ids"].cpu().numpy()
        for b, text in enumerate(texts):
            kept_T = ~special_BT[b]
            vectors = hidden_BTD[b, kept_T]
            self._vectors[text] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            self._pieces[text] = ids_BT[b, kept_T].tolist()
