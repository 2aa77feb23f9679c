"""Study 5 from dump to figures: planted dumps with known answers, tiny models, the YAML of figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import vlm_tiny as tiny
from conftest import ROOT
from hydra.utils import instantiate
from omegaconf import OmegaConf

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.measures.results import write_results
from attention_atlas.measures.table import read_table, select, write_table
from attention_atlas.plotting.draw import draw_all
from attention_atlas.recording import Axis, StatisticsWriter
from attention_atlas.studies.metric_table import table_of
from attention_atlas.studies.vlm_phases.context_rows import INTER, Contextualisation
from attention_atlas.studies.vlm_phases.dump_file import Dump, opened
from attention_atlas.studies.vlm_phases.knockout_rows import Knockout, Winoground
from attention_atlas.studies.vlm_phases.lens_rows import LogitLens
from attention_atlas.studies.vlm_phases.norm_attention import ROWS
from attention_atlas.studies.vlm_phases.norm_rows import NormAttention, concentration, membership
from attention_atlas.studies.vlm_phases.run import PhasesDump, dump_phases

PIECES = ["<s>", "▁cube", "▁red", "▁lamp", "▁the", "s", "▁ball"]
TEXTS = ["the red cube", "a ball", "the lamp"]
LAYERS = 2


def planted(folder: Path) -> Path:
    """Three images, two layers, three visual tokens; every number is known."""
    writer = StatisticsWriter(
        folder / "statistics.h5",
        model="m",
        config_hash="h",
        kinds={"decoder": ("row", "sequence")},
        groups={"sequence": ["image", "prompt", "caption"]},
    )
    roles = ["bos", "image", "image", "image", "text", "text"]
    axes = {"row": Axis(ROWS), "sequence": Axis(["t"] * 6, roles)}
    for i in range(3):
        # Unit vectors: the image points along axis i, prompt and caption turn towards it from layer to layer.
        sums = np.zeros((LAYERS + 2, 3, 4))
        for layer in range(LAYERS + 2):
            sums[layer, 0, i] = 3
            share = layer / (LAYERS + 1)
            for g in (1, 2):
                sums[layer, g, i], sums[layer, g, 3] = share, np.sqrt(1 - share**2)
        # Layer 0: the, the, <s>; layer 1: red+s, ball, lamp; layer 2: red, cube, cube.
        lens = np.array([[4, 4, 0], [2, 5, 6], [2, 1, 1]], dtype=np.int32)
        norm = np.zeros((LAYERS, 3, 6))
        norm[:, 0, :4] = [1, 1, 1, 1]
        norm[:, 1, :5] = [0, 2, 1, 1, 4]
        norm[:, 2] = [0, 1, 1, 0, 1, 1]
        attention = (np.arange(6) <= np.array([3, 4, 5])[:, None]) / np.array([4, 5, 6])[:, None]
        log_prob = np.array([-4.0, -6.0, -4.0 - i, -8.0])
        writer.write(
            f"e{i}",
            {
                "decoder": {
                    "unit_sums": sums.astype(np.float32),
                    "counts": np.array([3, 1, 1], dtype=np.float32),
                    "span": np.array([5, 6], dtype=np.int32),
                    "lens_plain": lens,
                    "lens_normalised": lens,
                    "norm": norm,
                    "attention": np.stack([attention] * LAYERS),
                    "log_prob": log_prob,
                    "log_prob_other": np.array([-6.0, -6.0, -6.5, -8.0]),
                    "tokens": np.array([2.0]),
                }
            },
            axes,
        )
    writer.finish()
    about = {
        **{"model": "m", "data": "d", "grid": [1, 3], "layers": LAYERS, "rows": list(ROWS)},
        "groups": ["image", "prompt", "caption"],
        "conditions": ["plain", "another image", "text → image | 0-0", "text → image | 0-1"],
        "counts": {"context": 3, "lens": 3, "norm": 3, "knockout": 3},
        "pieces": PIECES,
        "samples": [{"id": f"e{i}", "image_id": f"im{i}", "text": text} for i, text in enumerate(TEXTS)],
        "images": {},
        "pairs": [
            {"id": "p", "scores": [[2.0, 1.0], [0.0, 3.0]]},
            {"id": "q", "scores": [[1.0, 2.0], [0.0, 3.0]]},
        ],
    }
    (folder / "dump.json").write_text(json.dumps(about))
    return folder


def table(rows: list[dict]) -> dict[tuple, dict]:
    """(measure, or (measure, facets) for others, condition, layer) -> row."""
    facets = ("input", "group", "setting", "statistic")
    found = {}
    for r in rows:
        more = tuple(r[f] for f in facets if r.get(f))
        found[(r["measure"], *more), r.get("condition", ""), r.get("layer", -1)] = r
    return {(k[0] if len(k) == 1 else k, c, at): r for (k, c, at), r in found.items()}


def test_lens_of_the_planted_dump(tmp_path: Path) -> None:
    with Dump(planted(tmp_path)) as dump:
        rows = table(LogitLens(shuffles=50).rows(dump))
        joined = table(LogitLens(joining="whole").rows(dump))
    # Layer 2 reads red, cube, cube: 3 of 3 and 2 of 2 words for the first caption, nothing for the others.
    assert rows["precision", "plain", 2]["value"] == pytest.approx(1 / 3)
    assert rows["recall", "plain", 2]["value"] == pytest.approx(1 / 3)
    assert rows[("recall", "sd"), "plain", 2]["value"] == pytest.approx(np.std([1, 0, 0], ddof=1))
    # Chance: the first caption's words are drawn for each of the other two in half of the shuffles.
    assert rows["precision", "plain", 2]["chance"] == pytest.approx(1 / 3, abs=0.1)
    # Layer 1 reads "reds" and "ball": one of two decoded words is the second caption's only word.
    assert rows["precision", "plain", 1]["value"] == pytest.approx(np.mean([0, 1 / 2, 0]))
    assert rows["recall", "plain", 1]["value"] == pytest.approx(1 / 3)
    # Whole tokens: "red", a fragment, "ball".
    assert joined["precision", "plain", 1]["value"] == pytest.approx(np.mean([1 / 3, 1 / 3, 0]))
    # Layer 0 reads only a stop word and a mark: no precision at all, and recall 0.
    assert rows["precision", "plain", 0]["n"] == 0 and np.isnan(rows["precision", "plain", 0]["value"])
    assert rows["recall", "plain", 0]["value"] == 0


def test_context_of_the_planted_dump(tmp_path: Path) -> None:
    with Dump(planted(tmp_path)) as dump:
        rows = Contextualisation().rows(dump)
        normed = Contextualisation(final_norm=True).rows(dump)
        phases = dump.phases
        with pytest.raises(ConfigError, match="text: 'captions' is not a group; did you mean 'caption'"):
            Contextualisation(text=["captions"]).rows(dump)
    found, behind = table(rows), table(normed)
    for layer in range(LAYERS + 1):
        row = found["cosine", INTER, layer]
        assert row["value"] == pytest.approx(layer / 3) and row["n"] == 3
        # Other images point along other axes.
        assert row["chance"] == pytest.approx(0)
        assert found["cosine", "image – image", layer]["value"] == pytest.approx(1)
        assert found["cosine", "text – text", layer]["value"] == pytest.approx(1)
        rest = 1 - (layer / 3) ** 2
        assert found["cosine", "text – text", layer]["chance"] == pytest.approx(rest)
        assert found["intra minus inter", "image – image", layer]["value"] == pytest.approx(1 - layer / 3)
    assert found["cosine behind the final norm", INTER, 2]["value"] == pytest.approx(1)
    assert behind["cosine", INTER, 2]["value"] == pytest.approx(1)
    # The curve only rises: one phase, in every resample.
    assert phases.phases.edges(LAYERS + 1) == [("III Inter-modal Encoding", 0, 2)]
    assert found["four phases", "", -1]["value"] == 0


def test_norm_of_the_planted_dump(tmp_path: Path) -> None:
    with Dump(planted(tmp_path)) as dump:
        rows = table(NormAttention().rows(dump))
        member = membership(dump.axis("e0"), np.array([5, 6]))
    assert member.sum(1).tolist() == [1, 3, 1, 1]
    assert rows["norm share", "last text → image", 0]["value"] == pytest.approx(2 / 4)
    assert rows["norm share", "last text → caption", 1]["value"] == pytest.approx(1 / 4)
    assert rows["norm share", "last text → image", 0]["chance"] == pytest.approx(3 / 6)
    assert rows["norm share", "last prompt → image", 0]["value"] == pytest.approx(4 / 8)
    assert rows["attention share", "last prompt → image", 0]["value"] == pytest.approx(3 / 5)
    assert rows["norm", "last prompt → image", 0]["value"] == pytest.approx(4 / 3)
    assert ("norm share", "last image → caption", 0) not in rows
    assert rows["norm concentration", "last image", 0]["value"] == pytest.approx(0, abs=1e-6)
    assert rows["sinks", "image", -1]["value"] == 0
    # By hand: all on one of two tokens, and half and half.
    assert concentration(np.array([[[1.0, 1e-30], [1.0, 1.0]]]))[0] == pytest.approx([1, 0], abs=1e-6)


def test_knockout_of_the_planted_dump(tmp_path: Path) -> None:
    with Dump(planted(tmp_path)) as dump:
        with pytest.raises(ConfigError, match="needs the phases of Contextualisation; list it first"):
            Knockout().rows(dump)
        Contextualisation().rows(dump)
        rows = table(Knockout().rows(dump))
        pairs = table(Winoground().rows(dump))
    assert rows["log-prob", "", -1]["value"] == pytest.approx(-2)
    assert rows[("log-prob change", "other"), "", -1]["value"] == pytest.approx(-1)
    assert rows[("log-prob change", "1"), "text → image", 0]["value"] == pytest.approx(-0.5)
    assert rows[("log-prob change", "all"), "text → image", -1]["value"] == pytest.approx(-2)
    net = "net log-prob change"
    assert rows[("log-prob change", "other", "1"), "text → image", 0]["value"] == pytest.approx(-0.25)
    assert rows[(net, "1"), "text → image", 0]["value"] == pytest.approx(-0.5 + 0.25)
    # Cut off everywhere, no image matters: what is left is what the own image is worth.
    assert rows[("log-prob change", "other", "all"), "text → image", -1]["value"] == pytest.approx(-1)
    assert rows[(net, "all"), "text → image", -1]["value"] == pytest.approx(-1)
    assert rows[(net, "III Inter-modal Encoding"), "text → image", -1]["value"] == pytest.approx(-0.25)
    by_phase = rows[("log-prob change", "III Inter-modal Encoding"), "text → image", -1]
    assert by_phase["value"] == pytest.approx(-0.5)
    assert pairs["text score", "", -1]["value"] == 1 and pairs["text score", "", -1]["n"] == 2
    assert pairs["image score", "", -1]["value"] == 0.5
    assert pairs["group score", "", -1]["chance"] == pytest.approx(1 / 6)


def test_broken_dumps_are_named(tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match=r"dump\.json: no such file; run the stage"):
        Dump(tmp_path)
    folder = planted(tmp_path / "a")
    about = json.loads((folder / "dump.json").read_text())
    del about["pieces"]
    (folder / "dump.json").write_text(json.dumps(about))
    with pytest.raises(AtlasError, match="pieces: field is missing; run the dump again"):
        Dump(folder)


@pytest.mark.slow
def test_every_figure_comes_out_of_tiny_models(tmp_path: Path) -> None:
    """Both models, two data sets, all figures of the YAML; the same bytes for the same dump."""
    settings = PhasesDump(
        {"context": 6, "lens": 6, "norm": 4, "knockout": 4, "pairs": None},
        blocks=["text → image", "image → image"],
        width=2,
    )
    folders = []
    for name, title in (("llava", "llava_mini"), ("instructblip", "instructblip_mini")):
        loaded = tiny.MAKERS[name]()
        loaded.name = title
        for data in ("rooms_captions", "tabletop_captions"):
            folders.append(tmp_path / f"{title}-{data}")
            corpus = tiny.corpus(tmp_path / data)
            work = tmp_path / "work" / folders[-1].name
            dump_phases(loaded, corpus, settings, folders[-1], work, data=data, config_hash="h")
    metrics = instantiate(OmegaConf.load(ROOT / "conf/metrics/vlm_phases.yaml").metrics)
    frame = table_of(metrics.measures, opened(folders), study="vlm_phases")
    numbers = write_results(tmp_path / "results", frame)
    metrics.shown.write(opened(folders), tmp_path / "results/tables/shown.json")
    shown = json.loads((tmp_path / "results/tables/shown.json").read_text())["samples"]
    assert read_table(tmp_path / "results/tables/metrics.csv").shape == frame.shape
    assert len(shown) == 8 and any("four phases" in name for name in numbers)
    knocked = select(
        frame, kind="knockout", measure="log-prob change", condition="text → image", setting="2", input=""
    )
    assert sorted(knocked["layer"].unique()) == [0, 1, 2] and set(knocked["n"]) == {4}
    figures = OmegaConf.load(ROOT / "conf/figure/vlm_phases.yaml")
    del figures["learning"]  # its table is that of the trainings
    for figure in figures.values():
        if "shown" in figure:
            figure.shown = str(tmp_path / "results/tables/shown.json")
    csv = tmp_path / "results/tables/metrics.csv"
    paths = draw_all(figures, csv, tmp_path / "figures")
    assert len(paths) == 2 * len(figures)
    again = draw_all({"knockout": figures.knockout}, csv, tmp_path / "again")
    assert again[0].read_bytes() == (tmp_path / "figures/knockout.png").read_bytes()
    write_table(tmp_path / "none.csv", frame.assign(ci_low=np.nan, ci_high=np.nan))
    assert len(draw_all(figures, tmp_path / "none.csv", tmp_path / "none")) == 2 * len(figures)
    figures.lens.models = {"other": "x"}
    with pytest.raises(AtlasError, match="figure 'lens': no rows of models other"):
        draw_all({"lens": figures.lens}, csv, tmp_path / "again")
