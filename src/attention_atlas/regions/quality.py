"""The quality of a features file, measured against the objects of its scenes (synthetic worlds only)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError
from attention_atlas.regions.features_file import FeaturesFile


def measure_features(features: FeaturesFile, corpus: Corpus, split: str = "val") -> dict[str, Any]:
    """Accuracies over the regions that show an object (gold >= 0) in the images of a split.

    images, regions (that show an object); label_accuracy; attribute_accuracy (the best attribute is one of
    the object's; excludes regions of objects that have none); attribute_share (regions whose attribute is
    above 0.1); majority_label, majority_attribute (accuracy of the most frequent one); recall (fraction of
    objects with a region); background (fraction of regions without an object); confused: the ten most
    frequent (true label, predicted label, count).
    Raises AtlasError if the file has no gold regions in the split.
    """
    label_right = attribute_right = attribute_asked = regions = everything = attributed = 0
    objects = found = images = 0
    confused: Counter[tuple[str, str]] = Counter()
    true_labels: Counter[str] = Counter()
    true_attributes: Counter[str] = Counter()
    for scene in corpus.scenes.values():
        if scene.split not in split.split("+"):
            continue
        images += 1
        row = features.read(scene.image_id)
        by_id = {o.id: o for o in scene.objects}
        gold = row.gold[: row.count]
        objects, found = objects + len(by_id), found + len(set(gold.tolist()) & set(by_id))
        everything += row.count
        for r in range(row.count):
            shown = by_id.get(int(gold[r]))
            if shown is None:
                continue
            regions += 1
            predicted = features.labels[int(row.label[r])]
            true_labels[shown.label] += 1
            label_right += predicted == shown.label
            if predicted != shown.label:
                confused[shown.label, predicted] += 1
            attributed += float(row.attribute_confidence[r]) > 0.1
            if shown.attributes:
                attribute_asked += 1
                true_attributes.update(set(shown.attributes))
                attribute = int(row.attribute[r])
                attribute_right += attribute >= 0 and features.attributes[attribute] in shown.attributes
    if regions == 0:
        raise AtlasError(
            f"{features.path}: gold: no region of split '{split}' belongs to an object; "
            "only features of synthetic worlds can be measured"
        )
    return {
        "images": images,
        "regions": regions,
        "label_accuracy": label_right / regions,
        "majority_label": max(true_labels.values()) / regions,
        "attribute_accuracy": attribute_right / max(1, attribute_asked),
        "majority_attribute": max(true_attributes.values(), default=0) / max(1, attribute_asked),
        "attribute_share": attributed / regions,
        "recall": found / max(1, objects),
        "background": 1 - regions / everything,
        "confused": [(*pair, count) for pair, count in confused.most_common(10)],
    }


def main(arguments: list[str] | None = None) -> int:
    """`python -m attention_atlas.regions.quality FEATURES CORPUS [--split val]` prints the measures."""
    import argparse
    import sys

    from attention_atlas.data.corpus import read_corpus

    parser = argparse.ArgumentParser(
        prog="python -m attention_atlas.regions.quality", description="Measure a features file of a world."
    )
    parser.add_argument("features", help="features.h5")
    parser.add_argument("corpus", help="folder with scenes.jsonl")
    parser.add_argument("--split", default="val")
    given = parser.parse_args(arguments)
    try:
        with FeaturesFile(given.features) as features:
            quality = measure_features(features, read_corpus(given.corpus), given.split)
    except AtlasError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    confused = quality.pop("confused")
    for name, value in quality.items():
        print(f"{name:20} {value:.3f}" if isinstance(value, float) else f"{name:20} {value}")
    for true, predicted, count in confused:
        print(f"{count:6} x {true} predicted as {predicted}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
