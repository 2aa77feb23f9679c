"""Open questions about rooms with ten answers each, in pairs: one question, two images, two answers.

The pairing is VQAv2's (Goyal et al. 2017, section 3): without the image the two are indistinguishable.
Simulated people give one of the right answers, or sometimes a wrong one, more often for harder questions;
most of the ten answers are right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import Example, Phrase, SceneObject, write_examples
from attention_atlas.data.question_types import first_word, official_type
from attention_atlas.errors import AtlasError, ConfigError, did_you_mean
from attention_atlas.measures.vqa_accuracy import consensus
from attention_atlas.measures.vqa_normalise import NUMBERS, normalise
from attention_atlas.synthetic.rooms.asking import Asked, questions
from attention_atlas.synthetic.rooms.plan import Plan
from attention_atlas.synthetic.rooms.text.things import look_at

PEOPLE = 10
SHARES = {
    "what": 0.14,
    "what color": 0.15,
    "where": 0.22,  # the slowest to learn
    "how many": 0.17,
    "which": 0.12,
    "why": 0.06,
    "is": 0.05,
    "are": 0.05,
    "does": 0.04,
}
_WORD_OF = {digit: word for word, digit in NUMBERS.items() if word != "none"}


def ten_answers(asked: Asked, rng: np.random.Generator, error: float = 0.25) -> list[str]:
    """Ten answers. A fraction `error` · hard is wrong; the right answer stays the most frequent."""
    for _ in range(20):
        answers = [_one_answer(asked, rng, error) for _ in range(PEOPLE)]
        if consensus(answers) == normalise(asked.answer):
            return answers
    return [asked.answer] * PEOPLE


def _one_answer(asked: Asked, rng: np.random.Generator, error: float) -> str:
    if asked.wrong and rng.random() < 0.02 + error * asked.hard:
        wrong = [w for w in asked.wrong if w != asked.answer]
        return wrong[int(rng.integers(len(wrong)))]
    if asked.also and rng.random() < 0.15:
        return asked.also[int(rng.integers(len(asked.also)))]
    if asked.answer in _WORD_OF and rng.random() < 0.1:
        return _WORD_OF[asked.answer]
    return asked.answer


@dataclass
class _Pool:
    """Images by answer for one question text; each image is used once."""

    by_answer: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def draw(self, rng: np.random.Generator, load: Sequence[int]) -> tuple[int, int] | None:
        """Two entries with different answers, each from the images with the fewest questions so far."""
        answers = sorted(a for a, left in self.by_answer.items() if left)
        if len(answers) < 2:
            return None
        pair = [answers[i] for i in rng.choice(len(answers), size=2, replace=False)]
        out = []
        for answer in pair:
            left = self.by_answer[answer]
            tried = [left[int(i)] for i in rng.integers(len(left), size=4)]
            best = min(tried, key=lambda i: (load[i], i))
            left.remove(best)
            out.append(best)
        return out[0], out[1]


def pair_up(
    candidates: Sequence[Sequence[Asked]], total: int, shares: Mapping[str, float], rng: np.random.Generator
) -> list[tuple[int, Asked, int, Asked]]:
    """About `total`/2 pairs (image, question, image, question): same text, different answers.

    The answers to a question are balanced as far as the images allow. A group with too few images gives
    fewer pairs than its share.
    """
    pools: dict[str, dict[str, _Pool]] = {group: {} for group in shares}
    asked_at: dict[tuple[str, int], Asked] = {}
    for image, items in enumerate(candidates):
        for asked in items:
            if asked.group in pools and (asked.text, image) not in asked_at:
                asked_at[asked.text, image] = asked
                pool = pools[asked.group].setdefault(asked.text, _Pool())
                pool.by_answer[asked.answer].append(image)
    load = np.zeros(len(candidates), dtype=int)
    pairs = []
    weight_sum = sum(shares.values())
    for group, share in shares.items():
        texts = sorted(t for t, p in pools[group].items() if len(p.by_answer) > 1)
        # Frequent questions are drawn more often, but not proportionally.
        weights = np.array([_size(pools[group][t]) ** 0.5 for t in texts])
        for _ in range(round(total * share / weight_sum / 2)):
            if not texts or weights.sum() == 0:
                break
            at = int(rng.choice(len(texts), p=weights / weights.sum()))
            drawn = pools[group][texts[at]].draw(rng, load)  # type: ignore[arg-type]
            if drawn is None:
                weights[at] = 0
                continue
            first, second = drawn
            load[[first, second]] += 1
            pairs.append((first, asked_at[texts[at], first], second, asked_at[texts[at], second]))
    return pairs


def _size(pool: _Pool) -> int:
    """Maximum number of pairs of a pool: the number of entries without its most frequent answer."""
    counts = sorted(len(images) for images in pool.by_answer.values())
    return min(sum(counts[:-1]), sum(counts) // 2)


class Questions:
    """The annotator of data=rooms_questions: about `per_scene` questions for each image.

    shares: of the groups (what, what color, where, how many, which, why, is, are, does); error: fraction of
    wrong answers to the hardest questions.
    """

    def __init__(
        self, per_scene: float = 4.0, error: float = 0.25, shares: Mapping[str, float] | None = None
    ) -> None:
        if per_scene <= 0 or not 0 <= error < 0.5:
            raise ConfigError("Questions: per_scene must be above 0 and error within 0..0.5")
        self.per_scene, self.error = per_scene, error
        self.shares = dict(SHARES if shares is None else shares)
        for name in self.shares:
            if name not in SHARES:
                raise ConfigError(f"Questions: shares: '{name}'{did_you_mean(name, SHARES)}")

    def of_rooms(
        self, rooms: Sequence[tuple[str, Plan, Sequence[SceneObject]]], rng: np.random.Generator
    ) -> list[Example]:
        """Questions about (image id, plan, visible objects), paired among these images."""
        candidates = [list(questions(look_at(plan, objects), objects)) for _, plan, objects in rooms]
        pairs = pair_up(candidates, round(self.per_scene * len(rooms)), self.shares, rng)
        count = [0] * len(rooms)
        examples: list[Example] = []
        for first, asked, second, also_asked in pairs:
            made = []
            for image, one in ((first, asked), (second, also_asked)):
                image_id = rooms[image][0]
                made.append(self._example(f"{image_id}_q{count[image]:02d}", image_id, one, rng))
                count[image] += 1
            made[0].extra["pair"], made[1].extra["pair"] = made[1].id, made[0].id
            examples += made
        return sorted(examples, key=lambda e: e.id)

    def _example(self, id: str, image_id: str, asked: Asked, rng: np.random.Generator) -> Example:
        phrases = []
        if asked.phrase:
            start = asked.text.index(asked.phrase)
            kind = "group" if len(asked.objects) > 1 else "object" if asked.objects else "miss"
            phrases.append(Phrase(start, start + len(asked.phrase), list(asked.objects), kind))
        extra = {
            "group": asked.group,
            "question_type": official_type(asked.text),
            "first_word": first_word(asked.text),
            "answer": normalise(asked.answer),
        }
        answers = ten_answers(asked, rng, self.error)
        return Example(id, image_id, asked.text, phrases, [], answers, extra)

    def __call__(self, corpus_root: Path, out: Path, seed: int) -> None:
        """Write the questions of every split under `corpus_root` to `out` (Examples, one per line)."""
        from attention_atlas.data.corpus import read_corpus
        from attention_atlas.synthetic.rooms.plan_file import plans_of

        scenes = read_corpus(corpus_root).scenes
        plans = plans_of(corpus_root, scenes)
        examples: list[Example] = []
        for number, split in enumerate(sorted({s.split for s in scenes.values()})):
            rooms = [(i, plans[i], s.objects) for i, s in sorted(scenes.items()) if s.split == split]
            examples += self.of_rooms(rooms, np.random.default_rng([seed, number]))
        if not examples:
            raise AtlasError(f"{corpus_root}: no two images differ in any answer; render more rooms")
        write_examples(out, examples)
