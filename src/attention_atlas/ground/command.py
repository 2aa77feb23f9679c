"""The command `ground`: arguments, messages, exit codes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import ConfigError
from attention_atlas.look.command import add_machine

if TYPE_CHECKING:
    from attention_atlas.data.phrase_boxes import Example

HELP = "which attention heads find what a phrase names, scored on boxes in your images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Ask a vision-language model about phrases whose boxes are known, score each attention head by how "
        "well it finds them, pick heads, measure them on other images, and write heads.csv, summary.json "
        "and index.html."
    )
    parser.add_argument("model", metavar="MODEL", help="hub id, or a folder that save_pretrained wrote")
    parser.add_argument(
        *("--data", "--images"), dest="data", required=True, type=Path, metavar="FOLDER",
        help="folder of the images",
    )  # fmt: skip
    parser.add_argument(
        "--boxes",
        type=Path,
        metavar="CSV",
        help="image,phrase,x,y,w,h in pixels (default: FOLDER/boxes.csv)",
    )
    parser.add_argument(
        "--coco", type=Path, metavar="JSON", help="COCO's instances_*.json: categories and their boxes"
    )
    parser.add_argument(
        "--refcoco",
        type=Path,
        metavar="JSON",
        help="RefCOCO's references as JSON; with its instances as --coco",
    )
    parser.add_argument(
        "--split", metavar="NAME", help="references of this split: val, testA, ... (default: all)"
    )
    parser.add_argument(
        "--detector",
        metavar="ID",
        help="object detector (hub id, folder, frozen SSD graph): score its predictions instead",
    )
    parser.add_argument(
        "--score", type=float, metavar="S", help="minimum score of a detection, 0 to 1 (default: 0.5)"
    )
    parser.add_argument(
        "--prompt", metavar="TEMPLATE", help='text with {phrase} (default: "Where is the {phrase}?")'
    )
    parser.add_argument(
        "--query", default="phrase", help="whose attention: the phrase's, or the last token's: phrase, last"
    )
    parser.add_argument("--layers", metavar="LIST", help="layers to score, from 0: 0,8,16-31 (default: all)")
    parser.add_argument(
        "--best", type=int, default=3, metavar="K", help="heads whose maps are averaged (default: 3)"
    )
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="folds of images (default: 5)")
    parser.add_argument("--limit", type=int, metavar="N", help="score N phrases, drawn at random")
    parser.add_argument(
        "--seed", type=int, default=0, help="of --limit, folds, intervals, control (default: 0)"
    )
    add_machine(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the three files")


def run(args: argparse.Namespace) -> None:
    """Raises AtlasError for a wrong argument or row before the model is loaded."""
    from attention_atlas.data.phrase_boxes import checked, some
    from attention_atlas.look.command import layer_numbers
    from attention_atlas.look.result import checked_folder

    layers = None if args.layers is None else layer_numbers(args.layers)
    if args.limit is not None and args.limit < 2:
        raise ConfigError(f"--limit: {args.limit} is less than 2; heads are measured on other images")
    checked_folder(args.out)
    examples = checked(some(examples_of(args), args.limit, args.seed))

    from attention_atlas.ground.result import FILES
    from attention_atlas.ground.run import PROMPT, check_arguments, ground
    from attention_atlas.look.load import load
    from attention_atlas.look.vision import is_vision, load_vision

    prompt = PROMPT if args.prompt is None else args.prompt
    check_arguments(prompt, args.query, args.best, args.folds)
    model: Any
    if is_vision(args.model):
        if args.prompt is not None or args.query != "phrase":
            option = "--query" if args.prompt is None else "--prompt"
            raise ConfigError(
                f"{option}: '{args.model}' is a model for images only, which reads no text; leave it out"
            )
        model, processor = load_vision(args.model, args.device, args.dtype), None
    else:
        model, processor = load(args.model, args.device, args.dtype)
    found = ground(model, processor, examples, prompt, args.query, layers, args.best, args.folds, args.seed)
    found.model = args.model
    if args.detector is not None:
        found.notes.insert(0, f"the boxes are predictions of {args.detector}, not annotations")
    found.save(args.out)
    for note in found.notes:
        print(f"note: {note}")
    for measure, pick in found.picks.items():
        best = pick["best_head"]
        layer, head = best["in_sample"]["heads"][0]
        print(
            f"{measure}: best head {layer}.{head} {best['in_sample']['value']:.3f}, picked and measured on "
            f"other images {best['held_out']['value']:.3f} [{best['held_out']['ci_low']:.3f}, "
            f"{best['held_out']['ci_high']:.3f}], uniform chance {found.chance[measure]['uniform']:.3f}"
        )
    for name in FILES:
        print(f"{args.out / name}  {(args.out / name).stat().st_size / 1e6:.2f} MB")


def examples_of(args: argparse.Namespace) -> list[Example]:
    """The examples of --boxes, --coco, --refcoco or --detector. Raises ConfigError for options that clash."""
    given = [name for name in ("boxes", "coco", "detector") if getattr(args, name) is not None]
    if len(given) > 1:
        raise ConfigError(f"--{given[0]}: has no effect with --{given[1]}; leave one of them out")
    if args.score is not None and args.detector is None:
        raise ConfigError("--score: has no effect without --detector; leave it out")
    if args.score is not None and not 0 <= args.score <= 1:
        raise ConfigError(f"--score: {args.score:g} is outside 0..1; give the minimum score of a detection")
    if args.refcoco is not None and args.coco is None:
        raise ConfigError("--refcoco: needs RefCOCO's instances.json as --coco; add it")
    if args.split is not None and args.refcoco is None:
        raise ConfigError("--split: has no effect without --refcoco; leave it out")
    if args.refcoco is not None:
        from attention_atlas.ground.coco import read_refcoco

        return read_refcoco(args.refcoco, args.coco, args.data, args.split)
    if args.detector is not None:
        from attention_atlas.devices import resolve_device
        from attention_atlas.regions.detected import detected

        score = {} if args.score is None else {"score": args.score}
        return detected(args.detector, args.data, resolve_device(args.device), **score)
    if args.coco is not None:
        from attention_atlas.ground.coco import read_coco

        return read_coco(args.coco, args.data)
    from attention_atlas.data.phrase_boxes import read_boxes

    return read_boxes(args.boxes or args.data / "boxes.csv", args.data)
