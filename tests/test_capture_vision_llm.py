"""study=vlm_capture: any vision LLM over a data set, whole and in shards, against its eager attention."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_own_phases import own_data
from tiny_checkpoints import FAMILIES

from attention_atlas.dumps.dump import dump, read_settings
from attention_atlas.dumps.vision_llm import VisionLlmDump
from attention_atlas.language.words import words
from attention_atlas.models.vlm.inputs import VlmInputs
from attention_atlas.models.vlm.load import load_vlm
from attention_atlas.recording import AttentionStore, StatisticsStore
from attention_atlas.studies.vlm_phases.own import own_corpus

OUT = "data/attention/vlm_capture/hub-folder"
GROUPS = ["bos", "image", "prompt", "text"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return own_data(tmp_path_factory.mktemp("own") / "data")


@pytest.fixture(scope="module", params=["llava", "qwen2_vl", "paligemma"])
def model(request, tmp_path_factory):
    return FAMILIES[request.param](tmp_path_factory.mktemp("models") / request.param)


def run(model: Path, data: Path, *words: str) -> dict[str, float]:
    """python -m pipeline.dump study=vlm_capture model=hub data=folder ..., in the working directory."""
    from hydra.utils import instantiate

    from attention_atlas.workflow.compose import compose
    from attention_atlas.workflow.stage import resolved

    own = [f"model.path={model}", f"data.root={data}", *words]
    cfg, _ = resolved(compose(ROOT, "dump", ["study=vlm_capture", "model=hub", "data=folder", *own]))
    job: Any = SimpleNamespace(
        device="cpu", digest=lambda: "d", input=Path, out=Path, work=lambda: Path("work"), written=[]
    )
    found: dict[str, float] = instantiate(cfg.dump)(cfg, job)
    return found


def loaded_from(path: Path) -> Any:
    target = "attention_atlas.studies.vlm_phases.any_model.load_any"
    return load_vlm({"_target_": target, "name": path.name, "run_folder": None, "path": str(path)})


def check(path: Path, loaded: Any, samples: list[Any]) -> None:
    """The file against what the model computes eagerly, one sample at a time."""
    with StatisticsStore(path) as store:
        assert store.ids == sorted(s.id for s in samples) and store.groups == {"sequence": GROUPS}
        for sample in samples:
            inputs = loaded.batch([sample])
            before = loaded.model.config._attn_implementation
            loaded.model.set_attn_implementation("eager")
            with torch.no_grad():
                attentions = loaded.model(**inputs, output_attentions=True).attentions
            loaded.model.set_attn_implementation(before)
            attn_LHSS = torch.cat(list(attentions)).double().numpy()
            axis = store.axis(sample.id, "sequence")
            ((start, stop),) = loaded.text_spans([sample])
            assert len(axis) == attn_LHSS.shape[-1] == stop
            own = ["prompt" if r == "text" else r for r in loaded.roles(inputs)[0][:start]]
            own += ["text"] * (stop - start)
            assert axis.roles == ["text" if r == "prompt" else r for r in own]
            assert [w < 0 for w in axis.word] == [name != "text" for name in own]
            assert max(axis.word) == len(words(sample.text)) - 1
            for g, name in enumerate(GROUPS):
                mass_LHS = attn_LHSS[..., np.array(own) == name].sum(-1)
                found_LHS = store.read(sample.id, "decoder", "mass")[..., g]
                np.testing.assert_allclose(found_LHS, mass_LHS, atol=1e-3)  # stored in half precision
            entropy_LHS = -(attn_LHSS * np.log(np.maximum(attn_LHSS, 1e-300))).sum(-1)
            found_LHS = store.read(sample.id, "decoder", "entropy")
            np.testing.assert_allclose(found_LHS, entropy_LHS, atol=2e-3)


def test_one_command_over_a_folder_of_images(model, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(model, data, "study.split=train+val+test")["examples"] == 6
    task = VisionLlmDump("train+val+test")
    loaded = loaded_from(model)
    task.prepare(own_corpus(data), None, loaded.inputs, {})
    check(tmp_path / OUT / "statistics.h5", loaded, list(task.samples.values()))


def test_shards_read_as_the_whole_file(model, data, tmp_path, monkeypatch):
    for shards in (1, 3):
        (tmp_path / f"{shards}").mkdir()
        monkeypatch.chdir(tmp_path / f"{shards}")
        for shard in range(shards):
            words = [f"capture.shards={shards}", f"capture.shard={shard}"]
            run(model, data, "study.split=train+val+test", *words)
    with (
        StatisticsStore(tmp_path / "1" / OUT / "statistics.h5") as whole,
        StatisticsStore(tmp_path / "3" / OUT / "statistics.h5") as parts,
    ):
        assert len(parts.ids) == 6 and parts.digest() == whole.digest()


def test_inputs_are_the_same_in_another_process_and_do_not_take_the_weights_along(model, data):
    task = VisionLlmDump("train+val+test")
    loaded = loaded_from(model)
    task.prepare(own_corpus(data), None, loaded.inputs, {})
    sent = pickle.loads(pickle.dumps(task))
    assert not isinstance(sent.inputs.model, torch.nn.Module)
    (first, *_) = task.plan()
    one, other = task.batch(first).inputs, sent.batch(first).inputs
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_padded_batches_of_several_examples(data, tmp_path):
    path = FAMILIES["llava"](tmp_path / "llava")
    loaded = loaded_from(path)
    processor = loaded.inputs.processor
    loaded.inputs = VlmInputs(
        processor.tokenizer,
        processor.image_processor,
        "USER: <image> {prompt} ASSISTANT:",
        loaded.model.config.image_token_id,
        9,
    )
    task = VisionLlmDump("train+val+test", batch_size=4)
    task.prepare(own_corpus(data), None, loaded.inputs, {})
    assert [len(ids) for ids in task.plan()] == [4, 2]
    settings = read_settings({"statistics": ["attn", "mass", "entropy"], "layers": "decoder"})
    names: dict[str, Any] = dict(model_name="m", config_hash="h")
    dump(task, loaded.model, settings, tmp_path / "out", tmp_path / "work", **names)
    check(tmp_path / "out" / "statistics.h5", loaded, list(task.samples.values()))
    with AttentionStore(tmp_path / "out" / "attention.h5") as store:
        store.validate()


def test_a_choice_of_layers_is_written_down(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = FAMILIES["llava"](tmp_path / "model")
    for layers, numbers in (("decoder", None), ("*language_model.layers.[12].*", [1, 2])):
        run(path, data, f"capture.settings.layers='{layers}'", "paths.attention=data/out")
        with StatisticsStore("data/out/statistics.h5") as store:
            (kind,) = store.kinds
            names = store.names(store.ids[0], kind)
            assert ("layers" in names) == (numbers is not None)
            if numbers:
                assert store.read(store.ids[0], kind, "layers").tolist() == numbers
                assert len(store.read(store.ids[0], kind, "entropy")) == 2
        Path("data/out/statistics.h5").unlink()
        (tmp_path / "work/statistics.h5").unlink(missing_ok=True)
