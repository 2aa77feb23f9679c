"""The command `phases`: study 5 for the user's own model and images."""

from __future__ import annotations

import argparse
import hashlib
import shutil
from pathlib import Path

from attention_atlas.errors import ConfigError
from attention_atlas.files import move
from attention_atlas.look.command import add_machine

HELP = "study 5 (phases of words and images by layer) for your model and your images with texts"
EXTRA = "pipeline"  # the extra of pyproject.toml that this command needs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run a vision-language model over images and their texts, measure how both interact in its layers, "
        "and write the tables and figures of study 5 (docs/vlm_phases.md)."
    )
    parser.add_argument("model", metavar="MODEL", help="hub id, or a folder that save_pretrained wrote")
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder with images and texts.csv or captions.csv, columns image,text",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder for tables and figures"
    )
    parser.add_argument(
        "--prompt", default="describe the picture.", help='what comes before a text (default: "%(default)s")'
    )
    parser.add_argument("--most", type=int, metavar="N", help="use at most N texts (default: see the docs)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the texts (default: 0)")
    add_machine(parser)


def run(args: argparse.Namespace) -> None:
    """Raises AtlasError. Unfinished results stay in a hidden folder beside --out, from which the same
    command resumes."""
    from attention_atlas.look.load import load
    from attention_atlas.look.result import checked_folder
    from attention_atlas.models.vlm.loaded import LoadedVlm
    from attention_atlas.studies.vlm_phases.any_model import ProcessorInputs
    from attention_atlas.studies.vlm_phases.own import DUMP, FIGURES, SAMPLES, TABLES, own_corpus, phases

    if not args.prompt.strip():
        raise ConfigError("--prompt: is empty; give an instruction that the texts answer")
    if args.most is not None and args.most < 2:
        raise ConfigError(f"--most: {args.most} is less than 2; chance needs a second image")
    out = checked_folder(args.out)
    if not (out / "metrics.json").is_file():
        for own in (DUMP, TABLES, FIGURES):
            if (out / own).exists():
                raise ConfigError(f"--out: {out / own}: is not of an earlier run; give another folder")
    corpus = own_corpus(args.data)
    model, processor = load(args.model, args.device, args.dtype)
    name = Path(args.model).name
    loaded = LoadedVlm(name, model, ProcessorInputs(model, processor))
    digest = hashlib.sha256(repr([args.model, args.prompt, args.most, args.seed, args.dtype]).encode())
    for example in corpus.examples:
        digest.update(repr([example.id, example.image_id, example.text]).encode())
    part = out.absolute().parent / f".{out.absolute().name}.{digest.hexdigest()[:12]}.part"
    most = args.most
    made = phases(
        loaded,
        corpus,
        part / "done",
        part / "work",
        title=name,
        config_hash=digest.hexdigest()[:16],
        samples={name: wanted if most is None else min(wanted, most) for name, wanted in SAMPLES.items()},
        prompt=args.prompt,
        seed=args.seed,
    )
    _moved(part / "done", out)
    shutil.rmtree(part)
    for note in made.notes:
        print(f"note: {note}")
    print(f"{len(corpus.examples)} texts, {len(corpus.scenes)} images")
    for folder in sorted(out.iterdir()):
        print(folder)


def _moved(done: Path, out: Path) -> None:
    """Move the results into `out`, replacing those of an earlier run; other files there stay."""
    out.mkdir(parents=True, exist_ok=True)
    for new in sorted(done.iterdir()):
        move(new, out / new.name)
