"""Processors by hub id or folder, also without torchvision.

Processors that also take videos (Qwen2-VL) do not load without torchvision, although their images only need
PIL and NumPy.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError, loading
from attention_atlas.files import write_text

SETTINGS = ("image_seq_len", "image_seq_length")  # of a processor itself, not of one of its parts


def load_processor(pretrained: str) -> Any:
    """transformers' AutoProcessor. Without torchvision, a processor that would need it for videos takes texts
    and images, by the PIL backend of its image processor.

    Raises AtlasError in one line when a package or a file is missing.
    """
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(pretrained)
    except (ImportError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if "orchvision" in str(error) and find_spec("torchvision") is None:
            return _of_images(pretrained)
        if isinstance(error, ImportError):
            raise AtlasError(
                f"{pretrained}: its processor needs a package ({_line(error)}); install it"
            ) from None
        raise AtlasError(
            f"{pretrained}: processor cannot be loaded ({_line(error)}); give a hub id or a folder"
        ) from None


def save_processor(processor: Any, folder: Path) -> None:
    """`save_pretrained`, also for a processor that was loaded without its video part."""
    parts = {name: getattr(processor, name, None) for name in processor.get_attributes()}
    if None not in parts.values():
        processor.save_pretrained(folder)
        return
    processor.tokenizer.chat_template = processor.chat_template  # written to a file that processors read too
    for part in parts.values():
        if part is not None:
            part.save_pretrained(folder)
    settings = {name: getattr(processor, name) for name in SETTINGS if hasattr(processor, name)}
    settings["processor_class"] = type(processor).__name__
    write_text(folder / "processor_config.json", json.dumps(settings, indent=2) + "\n")


def _of_images(pretrained: str) -> Any:
    import transformers
    from transformers.models.auto.image_processing_auto import AutoImageProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    remedy = "install torchvision, which its video processor needs"
    with loading(f"{pretrained}: processor of images", remedy):
        config = transformers.AutoConfig.from_pretrained(pretrained)
        own: Any = getattr(transformers, PROCESSOR_MAPPING_NAMES[config.model_type])
        images = AutoImageProcessor.from_pretrained(pretrained, backend="pil")
        tokenizer = transformers.AutoTokenizer.from_pretrained(pretrained)
        settings, _ = own.get_processor_dict(pretrained)
        known = {k: v for k, v in settings.items() if k in (*SETTINGS, "chat_template")}
        known.setdefault("chat_template", getattr(tokenizer, "chat_template", None))

        def accepted(self: Any, name: str, argument: Any) -> Any:
            return (
                type(None) if argument is None else own.check_argument_for_proper_class(self, name, argument)
            )

        without_video = type(own.__name__, (own,), {"check_argument_for_proper_class": accepted})
        made = without_video(image_processor=images, tokenizer=tokenizer, video_processor=None, **known)
        made.__class__ = own  # which can be pickled; only __init__ checks the arguments
        return made


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
