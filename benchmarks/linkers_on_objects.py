"""Linkers on ideal regions: regions are exactly a world's objects, named correctly.

    python benchmarks/linkers_on_objects.py --corpus data/synthetic/rooms [--split test] [--linkers NAME ...]

Prints mAP and accuracy of each linker of conf/linker/, with intervals and chance. Table 2 of the report uses
the regions and names of the features stage instead, with their errors.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import Corpus, read_corpus
from attention_atlas.errors import AtlasError
from attention_atlas.language.parse import parse_texts
from attention_atlas.linking.evaluate import evaluate
from attention_atlas.regions.features_file import FeaturesFile, FeaturesWriter

REGIONS = 36


def write_objects(corpus: Corpus, path: Path) -> None:
    """One region per object, repeated until there are 36; its label and first attribute are right."""
    objects = [o for scene in corpus.scenes.values() for o in scene.objects]
    labels = sorted({o.label for o in objects})
    attributes = sorted({a for o in objects for a in o.attributes})
    with FeaturesWriter(
        path, dim=1, regions=REGIONS, labels=labels, attributes=attributes, source="objects"
    ) as writer:
        for scene in corpus.scenes.values():
            shown = (scene.objects * REGIONS)[:REGIONS]
            writer.add(
                scene.image_id,
                features=np.zeros((len(shown), 1)),
                boxes=[o.box for o in shown],
                size=(scene.width, scene.height),
                label=[labels.index(o.label) for o in shown],
                label_confidence=np.ones(len(shown)),
                attribute=[attributes.index(o.attributes[0]) if o.attributes else -1 for o in shown],
                attribute_confidence=[float(bool(o.attributes)) for o in shown],
                gold=[o.id for o in shown],
            )


def main() -> int:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    conf = Path(__file__).resolve().parent.parent / "conf/linker"
    known = sorted(p.stem for p in conf.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=Path("data/synthetic/rooms"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--linkers", nargs="+", choices=known, default=known)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    try:
        corpus = read_corpus(options.corpus)
        examples = corpus.split(options.split)
        parses = parse_texts([e.id for e in examples], [e.text for e in examples])
        with tempfile.TemporaryDirectory() as folder:
            write_objects(corpus, Path(folder) / "features.h5")
            with FeaturesFile(Path(folder) / "features.h5") as features:
                for name in options.linkers:
                    start = time.perf_counter()
                    linker = instantiate(OmegaConf.load(conf / f"{name}.yaml"), device=options.device)
                    scores = evaluate(parses, corpus, features, linker)
                    print(f"{name} ({time.perf_counter() - start:.1f} s)")
                    for row in scores.rows():
                        interval = f"[{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
                        print(
                            f"  {row['measure']:<16} {row['condition']:<9} {row['value']:.3f} {interval}"
                            f" chance {row['chance']:.3f} n={row['n']}"
                        )
        print("gold by", ", ".join(f"{how} {share:.3f}" for how, share in scores.coverage().items()))
    except AtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
