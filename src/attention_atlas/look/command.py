"""The command `look`: arguments, messages, exit codes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import ConfigError

if TYPE_CHECKING:
    from attention_atlas.data.phrase_boxes import Example

HELP = "what each word of a prompt and its answer looks at in your images, as one HTML page"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Let a vision-language model answer a prompt about images (or take your answer), run it once more "
        "over the whole text, and write statistics.h5, summary.json and index.html, a page without a server. "
        "A model for images only (ViT, DINOv2, a CLIP or SigLIP tower) takes no prompt: the page shows its "
        "class token and your boxes."
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="hub id, a folder that save_pretrained wrote, or an ONNX export of DINOv2",
    )
    parser.add_argument(
        "--image", nargs="+", required=True, type=Path, metavar="PHOTO", help="one or more files"
    )
    parser.add_argument(
        "--prompt",
        help="the question to a vision-language model; with its image token in it, used as it is",
    )
    parser.add_argument("--answer", help="text to look at (default: the model writes it, greedily)")
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="maximum length of the model's answer (default: 40)"
    )
    parser.add_argument(
        "--layers",
        metavar="LIST",
        help="layers with maps, from 0: 0,8,16-31 (default: as many as the page can hold)",
    )
    parser.add_argument(
        "--sinks", action="store_true", help="print which tokens are sinks, and attention shares without them"
    )
    add_boxes(parser)
    add_machine(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the three files")


def add_boxes(parser: argparse.ArgumentParser) -> None:
    """--boxes, --detector and --score."""
    parser.add_argument(
        "--boxes", type=Path, metavar="CSV", help="image,phrase,x,y,w,h in pixels; images beside the file"
    )
    parser.add_argument(
        "--detector",
        metavar="ID",
        help="boxes that an object detector predicts: hub id, folder, or a frozen SSD graph (.pb)",
    )
    parser.add_argument(
        "--score", type=float, metavar="S", help="minimum score of a detection, 0 to 1 (default: 0.5)"
    )


def add_machine(parser: argparse.ArgumentParser) -> None:
    """--device and --dtype, which all commands have."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument(
        "--dtype", default="auto", help="auto, float32, bfloat16, float16, 8bit (default: auto)"
    )


def run(args: argparse.Namespace) -> None:
    """Raises AtlasError for a wrong argument before anything is loaded."""
    from attention_atlas.data.images import read_rgb
    from attention_atlas.look.result import FILES, checked_folder
    from attention_atlas.look.vision import is_vision

    layers = None if args.layers is None else layer_numbers(args.layers)
    longest = checked_length(args.max_new_tokens, args.answer)
    check_boxes(args)
    if args.prompt is not None and not args.prompt.strip():
        raise ConfigError("--prompt: is empty; give a question or an instruction")
    checked_folder(args.out)
    for path in args.image:
        read_rgb(path)
    vision = is_vision(args.model)
    for option in ("prompt", "answer", "max_new_tokens") if vision else ():
        if getattr(args, option) is not None:
            raise ConfigError(
                f"--{option.replace('_', '-')}: '{args.model}' is a model for images only, which reads no "
                "text; leave it out"
            )
    if args.prompt is None and not vision:
        raise ConfigError("--prompt: is missing; give a question or an instruction about the image")
    boxes = boxes_of(args)
    if vision:
        from attention_atlas.look.vision import load_vision
        from attention_atlas.look.vision_atlas import VisionAtlas

        tower = load_vision(args.model, args.device, args.dtype)
        look = VisionAtlas(tower).look(list(args.image), boxes, layers)
    else:
        from attention_atlas.look import Atlas
        from attention_atlas.look.load import load

        model, processor = load(args.model, args.device, args.dtype)
        look = Atlas(model, processor).look(
            list(args.image), args.prompt, args.answer, layers=layers, boxes=boxes, **longest
        )
    look.model, look.predicted_by = args.model, args.detector
    look.save(args.out)
    if args.detector is not None:
        found = ", ".join(f"{thing.name} in {look.images[thing.image].name}" for thing in look.things)
        print(f"note: the boxes are predictions of {args.detector}, not annotations: {found or 'none found'}")
    for note in look.notes:
        print(f"note: {note}")
    if not vision:
        print(f"answer: {look.answer}")
    if len(look.kept) < len(look.layers) and layers is None:
        kept = ", ".join(map(str, look.kept))
        print(f"maps of layers {kept} of {len(look.layers)}; choose others with --layers")
    if args.sinks:
        from attention_atlas.look.sinks import look_sinks

        print(look_sinks(look).text())
    for name in FILES:
        print(f"{args.out / name}  {(args.out / name).stat().st_size / 1e6:.2f} MB")


def check_boxes(args: argparse.Namespace) -> None:
    """Raises ConfigError where --boxes, --detector and --score clash."""
    if args.boxes is not None and args.detector is not None:
        raise ConfigError("--boxes: has no effect with --detector; leave one of them out")
    if args.score is not None and args.detector is None:
        raise ConfigError("--score: has no effect without --detector; leave it out")
    if args.score is not None and not 0 <= args.score <= 1:
        raise ConfigError(f"--score: {args.score:g} is outside 0..1; give the minimum score of a detection")


def boxes_of(args: argparse.Namespace) -> list[Example]:
    """The boxes from --boxes or --detector for the images."""
    if args.boxes is not None:
        from attention_atlas.data.phrase_boxes import read_boxes

        return read_boxes(args.boxes, args.boxes.parent)
    if args.detector is not None:
        from attention_atlas.devices import resolve_device
        from attention_atlas.regions.detected import detected_in

        score = {} if args.score is None else {"score": args.score}
        return detected_in(args.detector, args.image, resolve_device(args.device), **score)
    return []


def checked_length(longest: int | None, answer: str | None) -> dict[str, Any]:
    """--max-new-tokens as a keyword argument, if it is given."""
    if longest is None:
        return {}
    if answer is not None:
        raise ConfigError("--max-new-tokens: has no effect with --answer; leave one of them out")
    if longest < 1:
        raise ConfigError(f"--max-new-tokens: {longest} is less than 1; give a positive number")
    return {"max_new_tokens": longest}


def layer_numbers(text: str) -> list[int]:
    """'0,8,16-31' → [0, 8, 16, ..., 31]."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise ConfigError(
                f"--layers: '{part}' is no layer; give numbers and ranges, for example 0,8,16-31"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ConfigError(f"--layers: '{part}' ends before it begins; give the smaller number first")
        found += range(first, last + 1)
    return found
