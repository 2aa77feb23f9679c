"""Generated captions as a corpus: one example per image, so that they can be parsed and dumped."""

from __future__ import annotations

from pathlib import Path

from attention_atlas.data.corpus import Corpus, Example, check_examples, read_corpus
from attention_atlas.errors import AtlasError
from attention_atlas.files import read_jsonl


def read_generated_corpus(
    root: str | Path, layer: str | Path, generated: str | Path, name: str = ""
) -> Corpus:
    """root, layer: the corpus whose images were captioned (folder, text layer); generated: the file of the
    generate stage. The id of an example is its image id. Omits images whose caption has no words.

    Raises AtlasError for a caption of an unknown image, or if no caption has a word.
    """
    return of_generated(read_corpus(root, str(layer)), generated, name)


def of_generated(corpus: Corpus, generated: str | Path, name: str = "") -> Corpus:
    """The same for a corpus that has already been read, by any reader."""
    texts = read_generated(generated)
    examples = [Example(i, i, text) for i, text in texts.items() if any(c.isalnum() for c in text)]
    if not examples:
        raise AtlasError(f"{generated}: text: no caption has a word; train the captioner longer")
    check_examples(examples, corpus.scenes, str(generated))
    return Corpus(corpus.root, corpus.scenes, examples, name or f"{corpus.name} generated")


def read_generated(path: str | Path) -> dict[str, str]:
    """Generated text by image id. Raises AtlasError for a missing field or a duplicate image id."""
    texts: dict[str, str] = {}
    for line, row in read_jsonl(path):
        for name in ("image_id", "text"):
            if not isinstance(row, dict) or not isinstance(row.get(name), str):
                raise AtlasError(f"{path}: line {line}: {name}: is missing or not text; generate again")
        if row["image_id"] in texts:
            raise AtlasError(
                f"{path}: line {line}: image_id: '{row['image_id']}' occurs twice; generate again"
            )
        texts[row["image_id"]] = row["text"]
    return texts
