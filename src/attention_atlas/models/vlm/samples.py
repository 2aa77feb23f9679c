"""Samples of a vision LLM: an image, an instruction, and the target or generated text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus, Example

CAPTION_PROMPT = "describe the picture."


@dataclass(frozen=True)
class Sample:
    """`image`: the image's file. `prompt`: the instruction, without any template. `text`: the caption or
    answer that follows, "" to let the model generate it. `id` names the text, `image_id` the image."""

    id: str
    image_id: str
    image: Path
    prompt: str
    text: str = ""


def sample_of(corpus: Corpus, example: Example, prompt: str = CAPTION_PROMPT) -> Sample:
    """A caption becomes the text after `prompt`; a question (an example with answers) becomes the
    instruction, and its most frequent answer (the first in a tie) the text."""
    image = corpus.image_path(example.image_id)
    if not example.answers:
        return Sample(example.id, example.image_id, image, prompt, example.text)
    answers = list(example.answers)
    answer = max(dict.fromkeys(answers), key=answers.count)
    return Sample(example.id, example.image_id, image, example.text, answer)


def samples_of(corpus: Corpus, examples: Sequence[Example], prompt: str = CAPTION_PROMPT) -> list[Sample]:
    """`sample_of` each. Raises AtlasError when there are none."""
    if not examples:
        raise AtlasError(f"{corpus.root}: no example in this split; check data and split names")
    return [sample_of(corpus, e, prompt) for e in examples]


def with_other_images(samples: Sequence[Sample]) -> list[Sample]:
    """Each text with the next different image of the list: the baseline of a model that ignores the image."""
    found = []
    for i, sample in enumerate(samples):
        ahead = [samples[(i + k) % len(samples)].image for k in range(1, len(samples))]
        found.append(replace(sample, image=next((p for p in ahead if p != sample.image), sample.image)))
    return found
