"""Questions of one split with the objects and OCR words of their images, in batches for M4C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from attention_atlas.data.ocr_file import LOOK, OcrImage, OcrToken
from attention_atlas.errors import AtlasError
from attention_atlas.language.vocabulary import BOS, EOS, PAD, UNK, Vocabulary
from attention_atlas.measures.vqa_normalise import normalise
from attention_atlas.regions.phoc import SIZE, phoc
from attention_atlas.training.batches import cut, padded_ids
from attention_atlas.training.captions import RegionCache, tokens

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Example
    from attention_atlas.training.published_inputs import PublishedInputs


def answer_words(answer: str) -> list[str]:
    """The words of an answer in the order in which they are generated."""
    return normalise(answer).split()


def token_word(token: OcrToken) -> str:
    """An OCR word in the form used to compare answers: lower case, without punctuation at its ends."""
    return token.text.lower().strip(".,:;!?\"'()") or token.text.lower()


@dataclass
class Spelled:
    """One answer that the model can generate: for each word the ids that produce it (vocabulary ids, or
    vocabulary size + o for OCR word o), and how many annotators gave it."""

    words: list[str]
    options: list[list[int]]
    people: int


def spell(answers: Sequence[str], vocab: Vocabulary, read: Sequence[str], longest: int) -> list[Spelled]:
    """The annotators' answers of at most `longest` words that are all in the vocabulary or among the OCR
    words, most frequent first."""
    counts: dict[str, int] = {}
    for answer in answers:
        text = " ".join(answer_words(answer))
        counts[text] = counts.get(text, 0) + 1
    out = []
    for text in sorted(counts, key=lambda a: (-counts[a], a)):
        words = text.split()
        options = [
            [i for i in vocab.encode([w]) if i != UNK]
            + [len(vocab) + o for o, r in enumerate(read) if r == w]
            for w in words
        ]
        if words and len(words) <= longest and all(options):
            out.append(Spelled(words, options, counts[text]))
    return out


class TextQuestions:
    """vocab: words of questions; answer_vocab: words of answers. longest: maximum words of a question; steps:
    of an answer, including its end; objects, words: maximum number per image (0: all objects). exchange:
    share of training questions in which the OCR words are exchanged for others (see `exchanged`). published:
    sources of M4C's own inputs (see `PublishedInputs`); without it questions are words of `vocab`, and OCR
    words are described by the colours of their boxes."""

    def __init__(
        self,
        examples: Sequence[Example],
        vocab: Vocabulary,
        answer_vocab: Vocabulary,
        regions: RegionCache,
        ocr: Mapping[str, OcrImage],
        longest: int,
        steps: int,
        objects: int = 0,
        words: int = 50,
        exchange: float = 0.0,
        published: PublishedInputs | None = None,
    ) -> None:
        if not examples:
            raise AtlasError("questions: no example in this split; check data and split names")
        self.examples, self.regions = list(examples), regions
        self.vocab, self.answer_vocab = vocab, answer_vocab
        self.longest, self.steps, self.objects, self.exchange = longest, steps, objects, exchange
        # A first position before the words, like BERT's [CLS], that can summarise the question.
        self.questions = [tokens(e.text)[: longest - 1] for e in self.examples]
        self.read: dict[str, list[OcrToken]] = {}
        for example in self.examples:
            if example.image_id not in ocr:
                raise AtlasError(
                    f"ocr: image '{example.image_id}' is missing; run the OCR stage on this data set"
                )
            self.read[example.image_id] = best_read(ocr[example.image_id], words)
        # Every word of questions and OCR once; 0 and 1 are padding and the first position.
        read = {token_word(t) for tokens_ in self.read.values() for t in tokens_}
        known = {w: n for n, w in enumerate(sorted(read.union(*self.questions)), 2)}
        self.lexicon = list(known)
        self.numbers = [[1, *(known[w] for w in q)] for q in self.questions]
        self.read_numbers = {i: [known[token_word(t)] for t in ts] for i, ts in self.read.items()}
        self.word_ids = torch.tensor([PAD, BOS, *vocab.encode(known)])
        none = np.zeros(SIZE, np.float32)
        self.word_spelling = torch.from_numpy(np.stack([none, none, *map(phoc, known)]))
        self.others = np.array(sorted({known[w] for w in read}))
        self._image = {i: token_tensors(tokens_, ocr[i].size) for i, tokens_ in self.read.items()}
        self.published = published
        if published is not None:
            self.pieces = [published.question(e.text, longest) for e in self.examples]
            self.word_vectors = published.word_vectors(self.lexicon)
        self.spelled = [
            spell(e.answers, answer_vocab, [token_word(t) for t in self.read[e.image_id]], steps - 1)
            for e in self.examples
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def order(self, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
        """A shuffled epoch of the questions with an answer that the model can generate."""
        able = [i for i, s in enumerate(self.spelled) if s]
        return cut(np.random.default_rng([seed, epoch]).permutation(able).tolist(), batch_size)

    def in_order(self, batch_size: int) -> list[list[int]]:
        return cut(range(len(self)), batch_size)

    def batch(self, indices: Sequence[int], rng: np.random.Generator | None = None) -> dict[str, Tensor]:
        """The inputs of M4C. With `rng` also its targets: an answer to each question, drawn in proportion to
        how many annotators gave it, and the previous words; where a word has several ids, one is drawn."""
        names = [self.examples[i].image_id for i in indices]
        exchanged = [self.exchanged(n, rng) if rng is not None else {} for n in names]
        rows = [[e.get(w, w) for w in self.numbers[i]] for i, e in zip(indices, exchanged)]
        index_BT = padded_ids(rows, 0)
        if self.published is None:
            out = {"ids_BT": self.word_ids[index_BT], "spelling_BTP": self.word_spelling[index_BT]}
        else:
            out = self.published.padded([self.pieces[i] for i in indices])
        out |= self.regions.batch(names)
        if self.objects:
            for name in ("features_BND", "boxes_BN4", "regions_BN"):
                out[name] = out[name][:, : self.objects]
        out |= self._ocr(names, exchanged)
        # Words are compared by number; an exchange replaces the numbers in question and image alike.
        read = [[e.get(w, w) for w in self.read_numbers[n]] for n, e in zip(names, exchanged)]
        asked = [[int(w in row) for w in words] or [0] for words, row in zip(read, rows)]
        out["ocr_asked_BO"] = padded_ids(asked, 0) > 0
        if rng is not None:
            out |= self._targets(indices, exchanged, out["ocr_BO"].shape[1], rng)
        return out

    def exchanged(self, name: str, rng: np.random.Generator) -> dict[int, int]:
        """{number of an OCR word: number of its replacement}, for all words of an image or empty.

        The word is replaced in question, image and answer alike, so the question stays true of an image
        with other signs. This keeps the model from memorising the answers of a few images.
        """
        if not self.exchange or rng.random() >= self.exchange:
            return {}
        mine = sorted(set(self.read_numbers[name]))
        if len(mine) > len(self.others):
            return {}
        drawn = rng.choice(self.others, len(mine), replace=False).tolist()
        return dict(zip(mine, drawn))

    def _ocr(self, names: Sequence[str], exchanged: Sequence[Mapping[int, int]]) -> dict[str, Tensor]:
        index_BO = padded_ids(
            [[e.get(w, w) for w in self.read_numbers[n]] or [0] for n, e in zip(names, exchanged)], 0
        )
        published = self.published
        look_BOL = np.zeros((*index_BO.shape, published.features.dim if published else LOOK), np.float32)
        boxes_BO4 = np.zeros((*index_BO.shape, 4), np.float32)
        for b, name in enumerate(names):
            look, boxes = self._image[name]
            if published:
                look = published.features.get(name, [token.row for token in self.read[name]])
            look_BOL[b, : len(look)], boxes_BO4[b, : len(boxes)] = look, boxes
        vectors = {"ocr_vectors_BOF": self.word_vectors[index_BO]} if published else {}
        return vectors | {
            "ocr_spelling_BOP": self.word_spelling[index_BO],
            "ocr_look_BOL": torch.from_numpy(look_BOL),
            "ocr_boxes_BO4": torch.from_numpy(boxes_BO4),
            "ocr_BO": index_BO > 0,
        }

    def _targets(
        self,
        indices: Sequence[int],
        exchanged: Sequence[Mapping[int, int]],
        most: int,
        rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        shape = (len(indices), self.steps)
        target_BSA = np.zeros((*shape, len(self.answer_vocab) + most), np.float32)
        previous_BS, counts_BS = np.full(shape, PAD), np.zeros(shape, bool)
        previous_BS[:, 0] = BOS
        for b, (i, other) in enumerate(zip(indices, exchanged)):
            found = self.spelled[i]
            if not found:
                continue
            people = np.array([s.people for s in found], dtype=float)
            chosen = found[int(rng.choice(len(found), p=people / people.sum()))]
            for t, options in enumerate([*self._renamed(chosen, i, other), [EOS]]):
                target_BSA[b, t, options] = 1
                counts_BS[b, t] = True
                if t + 1 < self.steps:
                    previous_BS[b, t + 1] = options[int(rng.integers(len(options)))]
        return {
            "target_BSA": torch.from_numpy(target_BSA),
            "previous_BS": torch.from_numpy(previous_BS),
            "counts_BS": torch.from_numpy(counts_BS),
        }

    def _renamed(self, chosen: Spelled, index: int, other: Mapping[int, int]) -> list[list[int]]:
        """The ids of each word; for an exchanged one its pointers and the vocabulary id of its
        replacement."""
        if not other:
            return chosen.options
        read = self.read_numbers[self.examples[index].image_id]
        size = len(self.answer_vocab)
        out = []
        for options in chosen.options:
            pointers = [o for o in options if o >= size]
            if pointers:
                word = self.lexicon[other[read[pointers[0] - size]] - 2]
                options = [i for i in self.answer_vocab.encode([word]) if i != UNK] + pointers
            out.append(options)
        return out

    def text(self, index: int, ids: Sequence[int]) -> str:
        """The text of an answer given as ids of vocabulary and OCR words, up to EOS."""
        read = self.read[self.examples[index].image_id]
        words = []
        for i in ids:
            if i == EOS:
                break
            if i >= len(self.answer_vocab):
                words.append(token_word(read[i - len(self.answer_vocab)]))
            elif i not in (PAD, BOS):
                words += self.answer_vocab.decode([i])
        return " ".join(words)


def best_read(image: OcrImage, most: int) -> list[OcrToken]:
    """The `most` most confident words of an image, in the file's order."""
    order = sorted(range(len(image.tokens)), key=lambda i: (-image.tokens[i].confidence, i))[:most]
    return [image.tokens[i] for i in sorted(order)]


def token_tensors(read: Sequence[OcrToken], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """look (O,48) within 0..1 (zeros where unknown), boxes (O,4) relative within 0..1."""
    look, boxes = np.zeros((len(read), LOOK), np.float32), np.zeros((len(read), 4), np.float32)
    for o, token in enumerate(read):
        if token.look:
            look[o] = np.asarray(token.look, np.float32) / 255
        boxes[o] = np.clip(np.asarray(token.box) / np.array([*size, *size]), 0, 1)
    return look, boxes
