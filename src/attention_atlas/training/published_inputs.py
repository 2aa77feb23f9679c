"""Inputs of M4C (Hu et al. 2020) that come from other models: word pieces, FastText, detector features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attention_atlas.errors import loading
from attention_atlas.language.word_vectors import FastText
from attention_atlas.regions.ocr_features import OcrFeatures
from attention_atlas.training.batches import padded_ids


class PublishedInputs:
    """Inputs of M4C (Hu et al. 2020) beyond letters and boxes.

    Args:
        text_encoder: hub id or folder of the BERT whose tokenizer splits questions.
        fasttext: path of FastText vectors (.bin, or .vec without vectors for unknown words).
        ocr_features: folder of detector features of the words' boxes (see `OcrFeatures`).

    Raises AtlasError for a tokenizer that cannot be loaded or a missing file.
    """

    def __init__(self, text_encoder: str, fasttext: str, ocr_features: str) -> None:
        from transformers import AutoTokenizer

        self.fasttext = FastText(fasttext, "fasttext")
        self.features = OcrFeatures(ocr_features, "ocr_features")
        with loading(f"text_encoder: the tokenizer of '{text_encoder}'"):
            self.tokenizer = AutoTokenizer.from_pretrained(text_encoder)

    def question(self, text: str, longest: int) -> list[int]:
        """At most `longest` ids of word pieces, including [CLS] and [SEP]."""
        return list(self.tokenizer(text, truncation=True, max_length=longest)["input_ids"])

    def padded(self, pieces: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`ids_BT` and `pieces_BT`, which is False in the padding."""
        lengths = torch.tensor([len(row) for row in pieces])
        return {
            "ids_BT": padded_ids(pieces, int(self.tokenizer.pad_token_id or 0)),
            "pieces_BT": torch.arange(int(lengths.max())) < lengths[:, None],
        }

    def word_vectors(self, lexicon: Sequence[str]) -> Tensor:
        """(2 + words, F): rows 0 and 1 (padding and the first position) are zeros."""
        vectors_WF = torch.from_numpy(self.fasttext(lexicon))
        return torch.cat([torch.zeros(2, vectors_WF.shape[1]), vectors_WF])
