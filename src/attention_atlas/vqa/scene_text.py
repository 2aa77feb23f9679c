"""Questions of one split with the objects and the words that were read, in batches for M4C."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from attention_atlas.errors import AtlasError
from attention_atlas.training.captions import RegionCache, tokens
from attention_atlas.training.vocab import BOS, EOS, PAD, UNK, Vocabulary
from attention_atlas.vision.ocr_file import LOOK, OcrPicture, OcrToken
from attention_atlas.vision.phoc import SIZE, phoc
from attention_atlas.vqa.normalise import normalise

if TYPE_CHECKING:
    from attention_atlas.corpus import Example


def answer_words(answer: str) -> list[str]:
    """The words of an answer as they are spelled step by step."""
    return normalise(answer).split()


def token_word(token: OcrToken) -> str:
    """A word that was read, as answers are compared: lower case, without punctuation at its ends."""
    return token.text.lower().strip(".,:;!?\"'()") or token.text.lower()


@dataclass
class Spelled:
    """One answer that can be spelled: for each of its words the ids that say it (vocabulary ids, or number of
    answers + o for word o), and how many people gave it."""

    words: list[str]
    options: list[list[int]]
    people: int


def spell(answers: Sequence[str], vocab: Vocabulary, read: Sequence[str], longest: int) -> list[Spelled]:
    """The people's answers, most frequent first, of which every word is in the vocabulary or was read; at
    most `longest` words."""
    counts: dict[str, int] = {}
    for answer in answers:
        said = " ".join(answer_words(answer))
        counts[said] = counts.get(said, 0) + 1
    out = []
    for said in sorted(counts, key=lambda a: (-counts[a], a)):
        words = said.split()
        options = [
            [i for i in vocab.encode([w]) if i != UNK]
            + [len(vocab) + o for o, r in enumerate(read) if r == w]
            for w in words
        ]
        if words and len(words) <= longest and all(options):
            out.append(Spelled(words, options, counts[said]))
    return out


class TextQuestions:
    """vocab: words of questions; said: words of answers. longest: words of a question; steps: of an answer,
    its end among them; objects, words: at most so many of a picture (0: all objects)."""

    def __init__(
        self,
        examples: Sequence[Example],
        vocab: Vocabulary,
        said: Vocabulary,
        regions: RegionCache,
        ocr: Mapping[str, OcrPicture],
        longest: int,
        steps: int,
        objects: int = 0,
        words: int = 50,
    ) -> None:
        if not examples:
            raise AtlasError("questions: no example in this split; check data and split names")
        self.examples, self.vocab, self.said, self.regions = list(examples), vocab, said, regions
        self.longest, self.steps, self.objects, self.words = longest, steps, objects, words
        self.questions = [tokens(e.text)[:longest] for e in self.examples]
        self.read: dict[str, list[OcrToken]] = {}
        for example in self.examples:
            if example.image_id not in ocr:
                raise AtlasError(
                    f"ocr: image '{example.image_id}' is missing; run the OCR stage on this data set"
                )
            self.read[example.image_id] = best_read(ocr[example.image_id], words)
        self._picture: dict[str, tuple[Tensor, Tensor, Tensor]] = {
            i: token_tensors(tokens_, ocr[i].size) for i, tokens_ in self.read.items()
        }
        self.spelled = [
            spell(e.answers, said, [token_word(t) for t in self.read[e.image_id]], steps - 1)
            for e in self.examples
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def order(self, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
        """A shuffled epoch of the questions that have an answer that can be spelled."""
        able = [i for i, s in enumerate(self.spelled) if s]
        shuffled = np.random.default_rng([seed, epoch]).permutation(able).tolist()
        return [shuffled[i : i + batch_size] for i in range(0, len(shuffled), batch_size)]

    def in_order(self, batch_size: int) -> Iterator[list[int]]:
        for start in range(0, len(self), batch_size):
            yield list(range(start, min(start + batch_size, len(self))))

    def batch(self, indices: Sequence[int], rng: np.random.Generator | None = None) -> dict[str, Tensor]:
        """What M4C reads. With `rng` also what it learns from: an answer of each question drawn by how many
        people gave it, and where a word can be said in several ways one of them as what was said before."""
        rows = [self.questions[i] for i in indices]
        wide = max(map(len, rows))
        ids_BT = torch.full((len(rows), wide), PAD)
        spelling_BTP = torch.zeros(len(rows), wide, SIZE)
        for b, row in enumerate(rows):
            ids_BT[b, : len(row)] = torch.tensor(self.vocab.encode(row))
            spelling_BTP[b, : len(row)] = torch.from_numpy(np.stack([phoc(w) for w in row]))
        names = [self.examples[i].image_id for i in indices]
        out = {"ids_BT": ids_BT, "spelling_BTP": spelling_BTP, **self.regions.batch(names)}
        if self.objects:
            for name in ("features_BND", "boxes_BN4", "regions_BN"):
                out[name] = out[name][:, : self.objects]
        out |= self._ocr(names)
        if rng is not None:
            out |= self._targets(indices, out["ocr_BO"].shape[1], rng)
        return out

    def _ocr(self, names: Sequence[str]) -> dict[str, Tensor]:
        most = max(1, *(len(self.read[n]) for n in names))
        out = {
            "ocr_spelling_BOP": torch.zeros(len(names), most, SIZE),
            "ocr_look_BOL": torch.zeros(len(names), most, LOOK),
            "ocr_boxes_BO4": torch.zeros(len(names), most, 4),
            "ocr_BO": torch.zeros(len(names), most, dtype=torch.bool),
        }
        for b, name in enumerate(names):
            count = len(self.read[name])
            spelling, look, boxes = self._picture[name]
            out["ocr_spelling_BOP"][b, :count] = spelling
            out["ocr_look_BOL"][b, :count] = look
            out["ocr_boxes_BO4"][b, :count] = boxes
            out["ocr_BO"][b, :count] = True
        return out

    def _targets(self, indices: Sequence[int], most: int, rng: np.random.Generator) -> dict[str, Tensor]:
        size = len(self.said) + most
        target_BSA = torch.zeros(len(indices), self.steps, size)
        previous_BS = torch.full((len(indices), self.steps), PAD)
        counts_BS = torch.zeros(len(indices), self.steps, dtype=torch.bool)
        previous_BS[:, 0] = BOS
        for b, i in enumerate(indices):
            found = self.spelled[i]
            if not found:
                continue
            people = np.array([s.people for s in found], dtype=float)
            chosen = found[int(rng.choice(len(found), p=people / people.sum()))]
            for t, options in enumerate([*chosen.options, [EOS]]):
                target_BSA[b, t, options] = 1
                counts_BS[b, t] = True
                if t + 1 < self.steps:
                    previous_BS[b, t + 1] = options[int(rng.integers(len(options)))]
        return {"target_BSA": target_BSA, "previous_BS": previous_BS, "counts_BS": counts_BS}

    def text(self, index: int, ids: Sequence[int]) -> str:
        """The answer that ids of vocabulary and read words spell, up to EOS."""
        read = self.read[self.examples[index].image_id]
        words = []
        for i in ids:
            if i == EOS:
                break
            if i >= len(self.said):
                words.append(token_word(read[i - len(self.said)]))
            elif i not in (PAD, BOS):
                words += self.said.decode([i])
        return " ".join(words)


def best_read(picture: OcrPicture, most: int) -> list[OcrToken]:
    """At most `most` words of a picture, the most confident, in the file's order."""
    order = sorted(range(len(picture.tokens)), key=lambda i: (-picture.tokens[i].confidence, i))[:most]
    return [picture.tokens[i] for i in sorted(order)]


def token_tensors(read: Sequence[OcrToken], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """spelling (O,604), look (O,48) within 0..1 (zeros where unknown), boxes (O,4) relative within 0..1."""
    spelling = np.zeros((len(read), SIZE), np.float32)
    look, boxes = np.zeros((len(read), LOOK), np.float32), np.zeros((len(read), 4), np.float32)
    for o, token in enumerate(read):
        spelling[o] = phoc(token.text)
        if token.look:
            look[o] = np.asarray(token.look, np.float32) / 255
        boxes[o] = np.clip(np.asarray(token.box) / np.array([*size, *size]), 0, 1)
    return torch.from_numpy(spelling), torch.from_numpy(look), torch.from_numpy(boxes)
