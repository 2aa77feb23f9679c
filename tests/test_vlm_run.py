"""The dump of study 5: what it keeps, resuming, the order of samples, errors in one line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import vlm_tiny as tiny

from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.vlm.samples import samples_of
from attention_atlas.recording import StatisticsStore
from attention_atlas.studies.vlm_phases.run import PhasesDump, draw, dump_phases

SETTINGS = PhasesDump(
    {"context": 6, "lens": 4, "norm": 3, "knockout": 2, "pairs": None},
    blocks=["text → image", "image → image"],
    width=2,
    batch_size=2,
)


def dumped(name: str, root: Path, settings: PhasesDump = SETTINGS):
    loaded, corpus = tiny.MAKERS[name](), tiny.corpus(root / "corpus")
    found = dump_phases(
        loaded, corpus, settings, root / "out", root / "work", data="tiny", config_hash="h", seed=0
    )
    about = json.loads((root / "out/dump.json").read_text())
    return found, about, loaded, corpus


@pytest.mark.parametrize("name", tiny.MAKERS)
def test_each_part_is_kept_of_as_many_samples_as_asked(name: str, tmp_path: Path) -> None:
    found, about, _, corpus = dumped(name, tmp_path)
    assert found == {"context": 6, "lens": 4, "norm": 3, "knockout": 2, "pairs": 1}
    ids = [s["id"] for s in about["samples"]]
    assert ids == [e.id for e in draw(corpus.examples, 0)]
    windows = ["0-1", "1-2", "2-3", "0-3"]
    assert about["conditions"] == [
        "plain",
        "another image",
        *(f"{b} | {w}" for b in SETTINGS.blocks for w in windows),
    ]
    image = 9 if name == "llava" else 5
    assert about["grid"] == ([3, 3] if name == "llava" else None)
    with StatisticsStore(tmp_path / "out/statistics.h5") as store:
        assert sorted(store.ids) == sorted(ids)
        for i, sample in enumerate(ids):
            names = {"unit_sums", "counts", "span"}
            names |= {"lens_plain", "lens_normalised"} if i < 4 else set()
            names |= {"norm", "attention"} if i < 3 else set()
            names |= {"log_prob", "log_prob_other", "tokens"} if i < 2 else set()
            assert set(store.names(sample, "decoder")) == names
            assert store.read(sample, "decoder", "unit_sums").shape == (tiny.LAYERS + 2, 3, 32)
            axis = store.axis(sample, "sequence")
            assert (axis.where("image")).sum() == image and "pad" not in axis.roles
            if i < 3:
                assert store.read(sample, "decoder", "norm").shape == (tiny.LAYERS, 3, len(axis))
            if i < 4:
                lens = store.read(sample, "decoder", "lens_plain")
                assert lens.shape == (tiny.LAYERS + 1, image)
                assert all(about["pieces"][t] for t in lens.ravel())
    assert len(about["pairs"]) == 1 and np.shape(about["pairs"][0]["scores"]) == (2, 2)


def test_log_probabilities_are_the_models_own(tmp_path: Path) -> None:
    """Own image, another image, and all layers blocked against the model run by itself."""
    _, about, loaded, corpus = dumped("llava", tmp_path)
    samples = samples_of(corpus, draw(corpus.examples, 0))
    with StatisticsStore(tmp_path / "out/statistics.h5") as store:
        rows = [store.read(s.id, "decoder", "log_prob") for s in samples[:2]]
        tokens = [float(store.read(s.id, "decoder", "tokens")[0]) for s in samples[:2]]
    own = loaded.log_prob(samples[:2], end=False)
    other = loaded.log_prob(samples[:2], images=[samples[1].image, samples[2].image], end=False)
    assert np.allclose([r[0] for r in rows], [t for t, _ in own], atol=1e-3)
    assert tokens == [n for _, n in own]
    assert np.allclose([r[1] for r in rows], [t for t, _ in other], atol=1e-3)
    blind = about["conditions"].index("text → image | 0-3")
    assert abs(rows[0][blind] - rows[0][0]) > 1e-3
    with StatisticsStore(tmp_path / "out/statistics.h5") as store:
        strange = [store.read(s.id, "decoder", "log_prob_other") for s in samples[:2]]
    assert np.allclose([r[0] for r in strange], [r[1] for r in rows], atol=1e-5)
    assert np.allclose([r[blind] for r in strange], [r[blind] for r in rows], atol=1e-3), "no image matters"
    window = about["conditions"].index("text → image | 0-1")
    assert abs(strange[0][window] - rows[0][window]) > 1e-5


def test_a_killed_dump_resumes_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import attention_atlas.studies.vlm_phases.run as run

    whole = dumped("llava", tmp_path / "a")[1]
    written = 0
    real = run.measure

    def dies(*args, **kwargs):
        nonlocal written
        written += 1
        if written == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(run, "measure", dies)
    with pytest.raises(KeyboardInterrupt):
        dumped("llava", tmp_path / "b")
    assert not (tmp_path / "b/out").exists()
    monkeypatch.setattr(run, "measure", real)
    assert dumped("llava", tmp_path / "b")[1] == whole
    one, two = ((tmp_path / x / "out/statistics.h5").read_bytes() for x in "ab")
    assert one == two


def test_order_shows_every_image_before_any_twice(tmp_path: Path) -> None:
    corpus = tiny.corpus(tmp_path)
    many = [e for e in corpus.examples for _ in range(3)]
    drawn = draw(many, seed=1)
    for turn in range(3):
        part = [e.image_id for e in drawn[turn * 6 : turn * 6 + 6]]
        assert len(set(part)) == 6
    assert Counter(e.id for e in drawn) == Counter(e.id for e in many)
    assert [e.id for e in draw(many, 1)] == [e.id for e in drawn] != [e.id for e in draw(many, 2)]


def test_errors_name_field_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="samples: 'lense' is unknown; did you mean 'lens'"):
        PhasesDump({"lense": 3})
    with pytest.raises(ConfigError, match="batch_size: must be at least 1"):
        PhasesDump({"lens": 3}, batch_size=0)
    with pytest.raises(ConfigError, match="all are 0"):
        dumped("llava", tmp_path, PhasesDump({"lens": 0}))
    corpus = tiny.corpus(tmp_path)
    empty = Corpus(corpus.root, corpus.scenes, [], "tiny")
    with pytest.raises(AtlasError, match="no example in this split"):
        dump_phases(
            tiny.llava(), empty, SETTINGS, tmp_path / "o", tmp_path / "w", data="tiny", config_hash="h"
        )


def test_memory_of_states_does_not_pile_up(tmp_path: Path) -> None:
    """No layer's states are alive when the next but one is visited (transformers keeps the embeddings)."""
    import weakref

    from attention_atlas.studies.vlm_phases.measure import each_state

    loaded, corpus = tiny.llava(), tiny.corpus(tmp_path)
    inputs = loaded.batch(samples_of(corpus, corpus.examples[:1]))
    seen: list[weakref.ref] = []
    alive: list[int] = []

    def visit(x: torch.Tensor) -> None:
        alive.append(sum(r() is not None for r in seen[1:-2]))
        seen.append(weakref.ref(x))

    with torch.no_grad(), each_state(loaded, visit):
        loaded.model(**inputs, use_cache=False)
    assert len(seen) == tiny.LAYERS + 2 and max(alive) == 0


def test_the_study_s_settings_and_a_model_of_another_task(tmp_path: Path) -> None:
    from conftest import ROOT
    from hydra.utils import instantiate

    from attention_atlas.errors import ConfigError
    from attention_atlas.workflow.compose import compose
    from attention_atlas.workflow.digests import config_hash

    words = ["model=llava_mini", "data=rooms_captions"]
    cfg = compose(ROOT, "dump", ["study=vlm_phases", *words])
    other = compose(ROOT, "dump", words)
    settings = instantiate(cfg.dump)
    assert isinstance(settings, PhasesDump)
    assert settings.split == "val+test" and settings.samples["norm"] == 100
    assert len(config_hash(cfg)) == 16  # every value resolves
    with pytest.raises(ConfigError, match=r"model=llava_mini: is a model of task 'vlm', .* choose the study"):
        instantiate(other.dump)(other, None)
