"""A small LLaMA-style tokenizer (BPE, '▁' before a word), learned from a model's training texts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError, ConfigError

PAD, BOS, UNK, EOS = "<pad>", "<s>", "<unk>", "</s>"
IMAGE = "<image>"
TURNS = ("USER:", "ASSISTANT:")  # one piece each, as in the template of LLaVA-1.5
FILE = "tokenizer.json"


def train_tokenizer(texts: Iterable[str], pieces: int) -> Any:
    """PreTrainedTokenizerFast with at most `pieces` pieces. Lower-cases texts and splits off punctuation; a
    character that is in no training text becomes <unk>."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNK, fuse_unk=True))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Punctuation("isolated")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    marks = [PAD, BOS, UNK, EOS, IMAGE, *TURNS]
    special = [AddedToken(m, special=True, normalized=False, lstrip=True, rstrip=True) for m in marks]
    trainer = trainers.BpeTrainer(vocab_size=pieces, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() > pieces:
        raise ConfigError(
            f"train_tokenizer: pieces: {pieces} is less than the {tokenizer.get_vocab_size()} characters and "
            "marks of the texts; raise it"
        )
    return wrapped(tokenizer)


def wrapped(tokenizer: Any) -> Any:
    """transformers' tokenizer around it; BOS before every text unless special tokens are disabled."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, bos)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, unk_token=UNK, pad_token=PAD
    )


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    from attention_atlas.files import write_text

    write_text(folder / FILE, tokenizer.backend_tokenizer.to_str(pretty=True) + "\n")


def load_tokenizer(folder: str | Path) -> Any:
    """Raises AtlasError for a missing or broken file."""
    from tokenizers import Tokenizer

    path = Path(folder) / FILE
    if not path.exists():
        raise AtlasError(f"{path}: no such file; train the model (dvc repro)")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise AtlasError(f"{path}: not a tokenizer ({str(error)[:100]}); retrain the model") from None
    for mark in (PAD, BOS, UNK, EOS, IMAGE):
        if tokenizer.token_to_id(mark) is None:
            raise AtlasError(f"{path}: has no piece '{mark}'; retrain the model")
    return wrapped(tokenizer)
