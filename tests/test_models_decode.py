"""Captions of a split, the file they are kept in, and the stages that train and write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from captioning_world import config, corpus, train_captioner, write_features
from conftest import ROOT

from attention_atlas.data.corpus import Example, write_examples, write_scenes
from attention_atlas.data.generated import read_generated
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import sha256, write_jsonl
from attention_atlas.models.run_folder import load_run
from attention_atlas.regions.features_file import FeaturesFile
from attention_atlas.training.decode import CaptionDecoder
from attention_atlas.workflow.profiles import apply_profile


def test_one_text_per_image_for_any_batch_size(tmp_path: Path) -> None:
    data = corpus()
    features = FeaturesFile(write_features(tmp_path / "f.h5", data))
    train_captioner(config(epochs=10), data, features, tmp_path / "run", tmp_path / "w")
    model, vocab, _ = load_run(tmp_path / "run")
    examples = data.split("test")
    again = [*examples, Example("second", examples[0].image_id, "Another text of the first image.")]
    one = list(CaptionDecoder(beam=2, batch_size=4, max_words=20).rows(model, vocab, again, features))
    two = list(CaptionDecoder(beam=2, batch_size=50, max_words=20).rows(model, vocab, again, features))
    assert one == two
    assert [row["image_id"] for row in one] == [e.image_id for e in examples]
    for row in one:
        assert row["words"] == len(row["text"].split()) <= 20
        assert set(row["text"].split()) <= set(vocab.words)
    with pytest.raises(AtlasError, match="no example"):
        list(CaptionDecoder().rows(model, vocab, [], features))
    with pytest.raises(ConfigError, match="CaptionDecoder: beam: must be at least 1"):
        CaptionDecoder(beam=0)


def test_generated_texts_read_back_and_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    write_jsonl(path, [{"image_id": "a", "text": "x y"}, {"image_id": "b", "text": ""}])
    assert read_generated(path) == {"a": "x y", "b": ""}
    write_jsonl(path, [{"image_id": "a", "text": "x"}, {"image_id": "b"}])
    with pytest.raises(AtlasError, match=r"g.jsonl: line 2: text: is missing"):
        read_generated(path)
    write_jsonl(path, [{"image_id": "a", "text": "x"}, {"image_id": "a", "text": "y"}])
    with pytest.raises(AtlasError, match=r"line 2: image_id: 'a' occurs twice"):
        read_generated(path)


@pytest.mark.slow
def test_the_stages_train_and_generate_from_the_repository_s_own_configuration(tmp_path: Path) -> None:
    """`conf/` as it is, profile smoke, on the hand-made corpus; trained twice, the bytes are the same."""
    data = corpus()
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    apply_profile(tmp_path, "smoke")
    root = tmp_path / "data/synthetic/rooms"
    root.mkdir(parents=True)
    write_scenes(root / "scenes.jsonl", data.scenes.values())
    write_examples(root / "descriptions.jsonl", data.examples)
    (tmp_path / "data/features").mkdir()
    write_features(tmp_path / "data/features/rooms.h5", data)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "DVC"))}
    environment["PYTHONPATH"] = str(ROOT / "src")

    def run(stage: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"pipeline.{stage}", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    folder = tmp_path / "data/models/grounding/lstm"
    result = run("train", "model=lstm")
    assert result.returncode == 0, result.stderr
    made = {p.name: sha256(p) for p in folder.iterdir()}
    assert set(made) == {"model.safetensors", "config.yaml", "vocab.json", "history.csv"}
    shutil.rmtree(folder)
    assert run("train", "model=lstm").returncode == 0
    assert {p.name: sha256(p) for p in folder.iterdir()} == made

    result = run("generate", "model=lstm")
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "data/generated/grounding/lstm.jsonl").read_text().splitlines()
    assert [json.loads(line)["image_id"] for line in lines] == [e.image_id for e in data.split("test")]

    result = run("generate", "model=blind")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "data/models/grounding/blind: no such file" in result.stderr
