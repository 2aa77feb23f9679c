"""The CNN + LSTM + LSTM baseline: hierarchical paragraphs (Krause et al. 2017; Ilinykh and Dobnik 2020).

Region features are projected and max-pooled; from the pooled vector a sentence LSTM computes a topic vector
for each sentence and the probability that the paragraph has ended; a word LSTM generates each sentence from
its topic. Input and output are one flat sequence of words: a sentence ends at '.', '!' or '?'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.language.vocabulary import BOS, EOS, PAD, Vocabulary
from attention_atlas.models.base import Batch, CaptionModel
from attention_atlas.models.dropout import Dropout
from attention_atlas.models.standardise import LEAST, Standardise


class HierarchicalLSTM(CaptionModel):
    """Published sizes: pooled 1024, hidden 512, two word-LSTM layers.

    `standardised`: features have mean 0 and deviation 1 over the training regions (as published: unchanged).
    """

    def __init__(
        self,
        vocab_size: int,
        feature_dim: int,
        pooled: int = 1024,
        hidden: int = 512,
        word_layers: int = 2,
        dropout: float = 0.5,
        sentence_ends: Sequence[str] = (".", "!", "?"),
        standardised: bool = False,
    ) -> None:
        super().__init__()
        self.standardise = Standardise(feature_dim) if standardised else nn.Identity()
        self.project = nn.Sequential(nn.Linear(feature_dim, pooled), nn.ReLU())
        self.sentence_lstm = nn.LSTM(pooled, hidden, batch_first=True)
        self.topic = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.stop = nn.Linear(hidden, 1)
        self.words = nn.Embedding(vocab_size, hidden)
        self.word_lstm = nn.LSTM(
            hidden, hidden, word_layers, batch_first=True, dropout=dropout if word_layers > 1 else 0.0
        )
        self.dropout = Dropout(dropout)
        self.generator = nn.Linear(hidden, vocab_size)
        self.sentence_ends = tuple(sentence_ends)
        self.opens_V: Tensor  # True for ids after which a new sentence starts
        self.register_buffer("opens_V", torch.arange(vocab_size) == BOS)

    def set_vocabulary(self, vocab: Vocabulary) -> None:
        """Set the ids that end a sentence; saved with the weights."""
        for i in vocab.encode(word for word in self.sentence_ends if word in vocab):
            self.opens_V[i] = True

    @torch.no_grad()
    def fit(self, batch: Batch) -> None:
        """Scale the projection such that the largest value over an image's regions has mean 0 and deviation
        1 over the images of `batch` (data-dependent initialisation, Salimans and Kingma 2016).

        Otherwise the maximum of many regions is large everywhere and pooled images hardly differ.
        """
        linear = self.project[0]
        assert isinstance(linear, nn.Linear)
        projected_BND = linear(self.standardise(batch["features_BND"]))
        largest_BD = projected_BND.masked_fill(~batch["regions_BN"][..., None], float("-inf")).amax(1)
        mean_D, std_D = largest_BD.mean(0), largest_BD.std(0).clamp(min=LEAST)
        linear.weight.div_(std_D[:, None])
        linear.bias.sub_(mean_D).div_(std_D)

    def encode(self, batch: Batch) -> Any:
        projected_BND = self.project(self.standardise(batch["features_BND"]))
        hidden = ~batch["regions_BN"][..., None]
        # After ReLU no value is below 0, so a padded region (0) never wins and an empty image gives 0.
        return {"pooled_BD": projected_BND.masked_fill(hidden, 0.0).amax(1)}

    def forward(self, batch: Batch) -> Tensor:
        inputs_BT = batch["ids_BT"][:, :-1]
        valid_BT = (inputs_BT != PAD) & (inputs_BT != EOS)
        opens_BT = self.opens_V[inputs_BT] & valid_BT
        time_T = torch.arange(inputs_BT.shape[1], device=inputs_BT.device)
        # Each sentence becomes a row, so that the word LSTM processes all of them at once.
        sentence_BT = opens_BT.cumsum(1) - 1
        column_BT = time_T - (time_T * opens_BT).cummax(1).values
        sentences_B = opens_BT.sum(1)
        row_BT = sentence_BT + (sentences_B.cumsum(0) - sentences_B)[:, None]
        width = int(column_BT[valid_BT].max()) + 1
        grid_RW = torch.full((int(sentences_B.sum()), width), PAD, device=inputs_BT.device)
        grid_RW[row_BT[valid_BT], column_BT[valid_BT]] = torch.where(opens_BT, BOS, inputs_BT)[valid_BT]

        pooled_BD = self.encode(batch)["pooled_BD"]
        count = int(sentences_B.max())
        states_BSD, _ = self.sentence_lstm(pooled_BD[:, None].expand(-1, count, -1).contiguous())
        exists_BS = torch.arange(count, device=inputs_BT.device) < sentences_B[:, None]
        states_RD = states_BSD[exists_BS]
        first_R1D = self.topic(states_RD)[:, None]
        rest_RWD = self.dropout(self.words(grid_RW))
        hidden_RWD, _ = self.word_lstm(torch.cat([first_R1D, rest_RWD], 1))
        row_BT, column_BT = row_BT * valid_BT, column_BT * valid_BT
        hidden_BTD = self.dropout(hidden_RWD[:, 1:][row_BT, column_BT])
        stop_BT = self.stop(states_RD)[:, 0][row_BT]
        return self._scores(hidden_BTD, stop_BT, opens_BT)

    def _scores(self, hidden_BTD: Tensor, stop_BT: Tensor, opens_BT: Tensor) -> Tensor:
        """Log-probabilities. At the start of a sentence, the sentence LSTM gives the paragraph's end."""
        logits_BTV = self.generator(hidden_BTD)
        end_V = torch.arange(logits_BTV.shape[-1], device=logits_BTV.device) == EOS
        inside_BTV = F.log_softmax(logits_BTV, -1)
        words_BTV = F.log_softmax(logits_BTV.masked_fill(end_V, -1e9), -1)
        stop_BT1 = stop_BT[..., None]
        opening_BTV = torch.where(end_V, F.logsigmoid(stop_BT1), words_BTV + F.logsigmoid(-stop_BT1))
        return torch.where(opens_BT[..., None], opening_BTV, inside_BTV)

    def decode_step(self, memory: Any, ids_BT: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        columns = ids_BT[:, -1:] if state is not None else ids_BT
        scores_BV = memory["pooled_BD"]
        for t in range(columns.shape[1]):
            scores_BV, state = self._step(memory["pooled_BD"], columns[:, t], state)
        return scores_BV, state

    def _step(self, pooled_BD: Tensor, ids_B: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One word. States are batch first, because the search selects rows."""
        if state is None:
            zeros = pooled_BD.new_zeros(len(pooled_BD), 1, self.sentence_lstm.hidden_size)
            many = zeros.expand(-1, self.word_lstm.num_layers, -1)
            state = {"sentence": (zeros, zeros), "word": (many, many), "stop_B": zeros[:, 0, 0]}
        opens_B = self.opens_V[ids_B]
        new, sentence = _run(self.sentence_lstm, pooled_BD, state["sentence"])
        empty = tuple(torch.zeros_like(x) for x in state["word"])
        _, word = _run(self.word_lstm, self.topic(new), empty)
        sentence = _choose(opens_B, sentence, state["sentence"])
        word = _choose(opens_B, word, state["word"])
        stop_B = torch.where(opens_B, self.stop(new)[:, 0], state["stop_B"])
        hidden_BD, word = _run(self.word_lstm, self.words(ids_B.masked_fill(opens_B, BOS)), word)
        scores = self._scores(hidden_BD[:, None], stop_B[:, None], opens_B[:, None])[:, 0]
        return scores, {"sentence": sentence, "word": word, "stop_B": stop_B}


def _run(lstm: nn.LSTM, x_BD: Tensor, state: Any) -> tuple[Tensor, Any]:
    """One step; `state` is (hidden, cell), each (B, layers, D)."""
    output, new = lstm(x_BD[:, None], tuple(s.transpose(0, 1).contiguous() for s in state))
    return output[:, 0], tuple(s.transpose(0, 1) for s in new)


def _choose(which_B: Tensor, new: Any, old: Any) -> Any:
    return tuple(torch.where(which_B[:, None, None], n, o) for n, o in zip(new, old))
