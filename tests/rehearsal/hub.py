"""Checkpoints of the classes that hub ids of conf/ name: random weights, in Hugging Face's cache layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

COMMIT = "0" * 40
HEADS, WIDTH = 4, 24
IMAGE = "<image>"


def write_hub(home: Path, texts: Iterable[str]) -> None:
    """`home`: what HF_HOME names. Tokenizers are learned from `texts`."""
    texts = [text.lower() for text in texts]
    models: dict[str, Callable[[Path], None]] = {
        "dandelin/vilt-b32-mlm": lambda folder: _vilt(folder, texts),
        "distilgpt2": lambda folder: _distilgpt2(folder, texts),
        "llava-hf/llava-1.5-13b-hf": lambda folder: _llava(folder, texts),
        "Salesforce/instructblip-vicuna-13b": lambda folder: _instructblip(folder, texts),
        "google-bert/bert-base-uncased": lambda folder: _bert(folder, texts),
        "sentence-transformers/bert-base-nli-mean-tokens": lambda folder: _sentence_transformer(
            folder, texts
        ),
    }
    for name, write in models.items():
        cached = home / "hub" / f"models--{name.replace('/', '--')}"
        shutil.rmtree(cached, ignore_errors=True)
        (cached / "refs").mkdir(parents=True)
        (cached / "refs" / "main").write_text(COMMIT)
        torch.manual_seed(0)
        write(cached / "snapshots" / COMMIT)


def _vilt(folder: Path, texts: list[str]) -> None:
    """384 pixels and patches of 32 as published, over WordPiece; a third of the layers and heads."""
    import transformers as T

    tokenizer = _word_pieces(folder, texts)
    config = T.ViltConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        image_size=384,
        patch_size=32,
        max_position_embeddings=40,
        initializer_range=0.1,
    )
    T.ViltForMaskedLM(config).save_pretrained(folder)


def _bert(folder: Path, texts: list[str]) -> None:
    import transformers as T

    tokenizer = _word_pieces(folder, texts)
    config = T.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=2 * WIDTH,
        initializer_range=0.2,
    )
    T.BertModel(config).save_pretrained(folder)


def _sentence_transformer(folder: Path, texts: list[str]) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    inner = folder.with_name("bert")
    _bert(inner, texts)
    words = Transformer(str(inner), max_seq_length=128)
    SentenceTransformer(modules=[words, Pooling(WIDTH, pooling_mode="mean")], device="cpu").save(str(folder))
    shutil.rmtree(inner)


def _word_pieces(folder: Path, texts: list[str]) -> Any:
    """BERT's tokenizer over the words of `texts`, saved to `folder`."""
    import transformers as T

    folder.mkdir(parents=True)
    words = sorted(
        {word for text in texts for word in "".join(c if c.isalnum() else " " for c in text).split()}
    )
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"?.,'", *letters, *(f"##{c}" for c in letters)]
    vocabulary = [*pieces, *(w for w in words if len(w) > 1)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = T.BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)})
    tokenizer.save_pretrained(folder)
    return tokenizer


def _distilgpt2(folder: Path, texts: list[str]) -> None:
    import transformers as T

    from attention_atlas.language.subwords import Subwords

    trained = Subwords.train(texts, 400)
    T.PreTrainedTokenizerFast(
        tokenizer_object=trained.tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(folder)
    end = trained.end
    sizes = {"n_positions": 256, "n_embd": WIDTH, "n_layer": 6, "n_head": 12}
    config = T.GPT2Config(
        vocab_size=len(trained), bos_token_id=end, eos_token_id=end, initializer_range=0.2, **sizes
    )
    T.GPT2LMHeadModel(config).save_pretrained(folder)


def _llava(folder: Path, texts: list[str]) -> None:
    import transformers as T

    tokenizer = _llama_tokenizer(texts)
    tokenizer.save_pretrained(folder)
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    config = T.LlavaConfig(
        text_config=_llama(tokenizer),
        vision_config=T.CLIPVisionConfig(**_tower(), projection_dim=WIDTH),
        image_token_id=image,
        image_token_index=image,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    T.LlavaForConditionalGeneration(config).save_pretrained(folder)
    side = {"height": SIDE, "width": SIDE}
    T.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=side).save_pretrained(folder)


def _instructblip(folder: Path, texts: list[str]) -> None:
    import transformers as T

    tokenizer = _llama_tokenizer(texts)
    tokenizer.save_pretrained(folder)
    instructions = _word_pieces(folder / "qformer_tokenizer", texts)
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    qformer = T.InstructBlipQFormerConfig(
        vocab_size=len(instructions),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        encoder_hidden_size=WIDTH,
        cross_attention_frequency=2,
        pad_token_id=0,
    )
    config = T.InstructBlipConfig(
        vision_config=T.InstructBlipVisionConfig(**_tower()).to_dict(),
        qformer_config=qformer.to_dict(),
        text_config=_llama(tokenizer).to_dict(),
        num_query_tokens=32,
        image_token_index=image,
        image_token_id=image,
    )
    model = T.InstructBlipForConditionalGeneration(config)
    # Made as zeros, which would make every image the same.
    torch.nn.init.normal_(model.query_tokens, std=0.5)
    model.save_pretrained(folder)
    T.BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


SIDE = 48


def _tower() -> dict[str, Any]:
    return {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": HEADS,
        "image_size": SIDE,
        "patch_size": 8,
        "initializer_range": 0.2,
    }


def _llama(tokenizer: Any) -> Any:
    import transformers as T

    return T.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=8,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=512,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _llama_tokenizer(texts: list[str]) -> Any:
    from attention_atlas.models.vlm.tokenizer import train_tokenizer

    return train_tokenizer([*texts, "describe the picture."], 500)
