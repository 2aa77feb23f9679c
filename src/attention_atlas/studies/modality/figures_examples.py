"""Figures 5, 6 and 8 of "How Vision Affects Language": single captions, from the examples that the metrics
stage wrote.

Figure 5: attention of a generated word (down) on earlier words (across), and dispersion per head. Figure 6:
head views. Figure 8: the regions that cross-attention prefers for every generated word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.data.images import read_rgb
from attention_atlas.errors import AtlasError, did_you_mean
from attention_atlas.measures.examples import AT_RANDOM
from attention_atlas.measures.table import head_matrix, measured
from attention_atlas.plotting.style import GREY, LINES, PAGE, SEQUENTIAL, new_figure, number
from attention_atlas.studies.modality.examples import read_examples
from attention_atlas.studies.modality.page import START, dispersion

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MAPS = ("drop", "keep")


def maps(table: pd.DataFrame, examples: str, models: Sequence[str], start: str = "drop") -> Figure:
    """Figure 5: per caption its image, a source × target map for each model (mean of all heads), and for
    each model the dispersion of every head on this caption.

    start: drop (START left out and rows renormalised, so that the two models can be compared) or keep.
    """
    if start not in MAPS:
        raise AtlasError(f"figure: start: '{start}'{did_you_mean(start, MAPS)}")
    content = read_examples(examples)
    captions = content["captions"]
    figure = new_figure(PAGE * 1.25, 1.35 + 1.85 * len(models) + 1.0 * len(models))
    ratios = [1.1, *[1.75] * len(models), *[1.0] * len(models)]
    axes = figure.subplots(len(ratios), len(captions), squeeze=False, height_ratios=ratios)
    spread = [[dispersion(_attention(c, m)) for c in captions] for m in models]
    images: dict[str, Any] = {}
    for i, caption in enumerate(captions):
        _image(axes[0, i], caption["image"])
        axes[0, i].set_title(f"({i + 1}) {caption['chosen']}", size=7.5)
        for r, model in enumerate(models):
            map_TS, sources = mean_map(_attention(caption, model), caption["words"], start)
            ax = axes[1 + r, i]
            images["map"] = ax.imshow(
                map_TS, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto", interpolation="nearest"
            )
            _words(ax, sources, caption["words"])
            ax.set_title(content["models"][model] if i == 0 else "", size=7, loc="left")
            ax = axes[1 + len(models) + r, i]
            images["spread"] = ax.imshow(
                spread[r][i], cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="auto", interpolation="nearest"
            )
            layers, heads = spread[r][i].shape
            ax.set_xticks(range(heads), [str(h + 1) for h in range(heads)], size=5.5)
            ax.set_yticks(range(layers), [str(n + 1) for n in range(layers)], size=5.5)
            ax.tick_params(length=0, pad=1.5)
            if i == 0:
                ax.set_title(f"dispersion, {content['models'][model]}", size=7, loc="left")
                ax.set_ylabel("layer", size=6.5)
    for ax in axes[-1]:
        ax.set_xlabel("head", size=6.5)
    for name, rows, label in (
        ("map", axes[1 : 1 + len(models)], "attention"),
        ("spread", axes[1 + len(models) :], "entropy / max"),
    ):
        bar = figure.colorbar(images[name], ax=list(rows.ravel()), fraction=0.02, pad=0.01, aspect=30)
        bar.set_label(label)
        bar.outline.set_visible(False)  # type: ignore[operator]
    note = "maps: mean of all heads, generated word down, source across"
    note += "; START left out, rows renormalised" if start == "drop" else "; START kept"
    note += f"\ncaptions by rule: {content['rule']}"
    figure.supxlabel(note, fontsize=6.5, color=GREY)
    return figure


def mean_map(attn_LHTS: np.ndarray, words: Sequence[str], start: str) -> tuple[np.ndarray, list[str]]:
    """(T,S) mean over layers and heads, and the names of the sources: START and all words but the last."""
    map_TS = attn_LHTS.mean(axis=(0, 1))[:, : len(words)]
    sources = [START, *words[:-1]]
    if start == "drop":
        map_TS, sources = map_TS[:, 1:], sources[1:]
        total_T1 = map_TS.sum(1, keepdims=True)
        map_TS = np.divide(map_TS, total_T1, out=np.zeros_like(map_TS), where=total_T1 > 0)
    hidden = np.arange(map_TS.shape[1])[None] + (start == "drop") > np.arange(len(map_TS))[:, None]
    return np.ma.masked_array(map_TS, hidden), sources


def heads(
    table: pd.DataFrame, examples: str, models: Sequence[str], caption: int = 0, each: int = 2
) -> Figure:
    """Figure 6: for each model (one row) the `each` heads of highest and lowest entropy over the whole test
    set, drawn for one caption."""
    content = read_examples(examples)
    if not 0 <= caption < len(content["captions"]):
        raise AtlasError(
            f"figure: caption: {caption} of {len(content['captions'])} captions; choose a lower number"
        )
    shown = content["captions"][caption]
    words = shown["words"]
    figure = new_figure(PAGE * 1.2, 0.5 + len(models) * (0.55 + 0.15 * len(words)))
    axes = figure.subplots(len(models), 2 * each, squeeze=False)
    for r, model in enumerate(models):
        rows = measured(table, measure="entropy", kind="decoder_self", model=model, condition="visible")
        if rows.empty:
            raise AtlasError(f"no rows with measure = entropy, model = {model}; run that metric")
        entropy_LH = np.asarray(head_matrix(rows))
        order = np.argsort(entropy_LH.ravel(), kind="stable")
        chosen = [*order[::-1][:each], *order[:each]]
        attn_LHTS = _attention(shown, model)
        for c, flat in enumerate(chosen):
            layer, head = np.unravel_index(flat, entropy_LH.shape)
            ax = axes[r, c]
            _head_view(ax, attn_LHTS[layer, head], words, LINES[0] if c < each else LINES[1])
            ax.set_title(
                f"layer {layer + 1}, head {head + 1}\nentropy {number(float(entropy_LH[layer, head]))}",
                size=7,
            )
        axes[r, 0].text(
            -0.25,
            0.5,
            content["models"][model],
            transform=axes[r, 0].transAxes,
            rotation=90,
            va="center",
            ha="center",
            size=7,
        )
    figure.supxlabel(
        "left: generated word, right: what it attends to, START left out; "
        f"blue: highest entropy, orange: lowest;\n{_how(content, shown)}",
        fontsize=6.5,
        color=GREY,
    )
    return figure


def _how(content: dict[str, Any], caption: dict[str, Any]) -> str:
    """How a caption was chosen, in words."""
    if caption["chosen"] == AT_RANDOM:
        return "caption drawn at random"
    return f"caption chosen by rule: {content['rule']}"


def _head_view(ax: Any, attn_TS: np.ndarray, words: Sequence[str], colour: str) -> None:
    for t in range(len(words)):
        for s in range(1, min(t + 1, attn_TS.shape[1])):  # source s is word s − 1; 0 is START
            weight = float(attn_TS[t, s])
            if weight > 0.01:
                ax.plot(
                    [0, 1],
                    [t, s - 1],
                    color=colour,
                    alpha=min(1.0, weight),
                    linewidth=1.6,
                    solid_capstyle="butt",
                )
    for i, word in enumerate(words):
        ax.text(-0.06, i, word, ha="right", va="center", size=6)
        ax.text(1.06, i, word, ha="left", va="center", size=6)
    ax.set_xlim(-1.0, 2.0)
    ax.set_ylim(len(words) - 0.5, -0.5)
    ax.axis("off")


def top_objects(table: pd.DataFrame, examples: str, captions: Sequence[int] = (0, 1), top: int = 5) -> Figure:
    """Figure 8: for every generated word the `top` regions of cross-attention (mean of all heads) with
    their share; the image shows the most attended box of each noun-like word, with the word's number."""
    content = read_examples(examples)
    shown = [content["captions"][i] for i in captions if i < len(content["captions"])]
    if not shown:
        raise AtlasError("figure: captions: no such numbers; choose lower ones")
    longest = max(len(c["words"]) for c in shown)
    figure = new_figure(PAGE * 1.25, len(shown) * (0.35 + 0.21 * longest))
    axes = figure.subplots(len(shown), 2, squeeze=False, width_ratios=[1, 2.4])
    for (left, right), caption in zip(axes, shown):
        _image(left, caption["image"])
        left.set_title(caption["chosen"], size=7)
        groups = _boxes(caption)
        for n, (box, numbers) in enumerate(groups):
            _box(left, box, ", ".join(str(i + 1) for i in numbers), LINES[n % len(LINES)])
        colours = {i: LINES[n % len(LINES)] for n, (_, numbers) in enumerate(groups) for i in numbers}
        _rows(right, caption, colours, top)
    figure.supxlabel(
        "words as they are generated, and the regions attended most (per cent of cross-attention, "
        "mean of all heads);\nboxes: the most attended region, with the numbers of its words; "
        f"captions by rule: {content['rule']}",
        fontsize=6.5,
        color=GREY,
    )
    return figure


def _boxes(caption: dict[str, Any]) -> list[tuple[list[float], list[int]]]:
    """The most attended box of each word in word order; words with the same box are grouped."""
    groups: list[tuple[list[float], list[int]]] = []
    for i, regions in enumerate(caption["objects"]):
        if not regions:
            continue
        box = regions[0]["box"]
        same = next((g for g in groups if g[0] == box), None)
        if same is None:
            groups.append((box, [i]))
        else:
            same[1].append(i)
    return groups


def _box(ax: Any, box: Sequence[float], label: str, colour: str) -> None:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.4))
    # A label near the right edge would leave the image: align its end with the box instead.
    ends = x1 > 0.8 * max(ax.get_xlim())
    ax.text(
        x2 - 1 if ends else x1 + 1,
        y1 + 1,
        label,
        ha="right" if ends else "left",
        size=5.5,
        color="white",
        va="top",
        bbox={"facecolor": colour, "pad": 0.8, "linewidth": 0},
    )


def _rows(ax: Any, caption: dict[str, Any], colours: dict[int, str], top: int) -> None:
    ax.axis("off")
    ax.set_xlim(0, top + 1.3)
    ax.set_ylim(len(caption["words"]) - 0.4, -0.6)
    for i, (word, regions) in enumerate(zip(caption["words"], caption["objects"])):
        ax.text(0.0, i, f"{i + 1}", size=5.5, va="center", color=colours.get(i, GREY))
        ax.text(0.22, i, word, size=7, va="center", weight="bold")
        for n, region in enumerate(regions[:top]):
            text = f"{region['label']} {100 * region['share']:.0f}"
            same = word.rstrip("s") in region["label"].split() or region["label"].split()[-1] == word
            ax.text(1.3 + n, i, text, size=6.5, va="center", color=LINES[1] if same else "black")


def _image(ax: Any, path: str) -> None:
    ax.imshow(np.asarray(read_rgb(path)), interpolation="antialiased")
    ax.axis("off")


def _words(ax: Any, sources: Sequence[str], targets: Sequence[str]) -> None:
    ax.set_xticks(range(len(sources)), list(sources), rotation=90, size=5.5)
    ax.set_yticks(range(len(targets)), list(targets), size=5.5)
    ax.tick_params(length=0, pad=1.5)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _attention(caption: dict[str, Any], model: str) -> np.ndarray:
    if model not in caption["models"]:
        raise AtlasError(f"figure: models: '{model}'{did_you_mean(model, caption['models'])}")
    return caption["models"][model]
