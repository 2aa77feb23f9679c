"""Show the contents of an attention.h5 or statistics.h5: python -m attention_atlas.recording.inspect FILE.h5

Prints schema, conventions, kinds, examples and a small heat-map in characters; --png draws it instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attention_atlas.errors import AtlasError, did_you_mean
from attention_atlas.recording import AttentionStore, Axis, StatisticsStore

SHADES = " ░▒▓█"
WIDTH = 72


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 1 after a one-line error."""
    parser = argparse.ArgumentParser(prog="python -m attention_atlas.recording.inspect", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--id", help="example (default: the first)")
    parser.add_argument("--kind", help="attention kind (default: the first that the example has)")
    parser.add_argument("--layer", type=int, default=-1, help="0-based (default: the last)")
    parser.add_argument("--head", type=int, help="0-based (default: mean of all)")
    parser.add_argument("--statistic", help="of statistics.h5 (default: mass)")
    parser.add_argument("--validate", action="store_true", help="read the whole file and check it")
    parser.add_argument("--partial", action="store_true", help="read a file that is not finished")
    parser.add_argument("--digest", action="store_true", help="print the SHA-256 of all that can be read")
    parser.add_argument("--png", type=Path, help="draw the heat-map into this file")
    args = parser.parse_args(arguments)
    try:
        _inspect(args)
    except AtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _inspect(args: argparse.Namespace) -> None:
    with _open(args.file, args.partial) as store:
        size = f"{args.file.stat().st_size / 1e6:.1f} MB" if args.file.exists() else "not finished"
        print(f"{args.file}  {size}")
        for name in sorted(store.attrs):
            print(f"  {name}: {store.attrs[name]}")
        for kind, (query, key) in store.kinds.items():
            print(f"  kind {kind}: {query} → {key} (from the attending to the attended position)")
        for axis, names in getattr(store, "groups", {}).items():
            print(f"  groups of {axis}: {', '.join(names)}")
        print(f"  examples: {len(store)}")
        if args.validate and isinstance(store, AttentionStore):
            store.validate()
            print("  valid: shapes fit the axes, no NaN, rows are distributions")
        if args.digest:
            print(f"  digest: {store.digest()}")
        if not len(store):
            return
        id = args.id or store.ids[0]
        kind = args.kind or next((k for k in store.kinds if k in store.kinds_of(id)), "")
        values, rows, columns, title = _table(store, id, kind, args)
        print(f"\n{id}, {title}")
        if args.png:
            _draw(args.png, values, rows, columns, f"{id}, {title}")
            print(f"  drawn: {args.png}")
        else:
            _print(values, rows, columns)


def _open(path: Path, partial: bool) -> AttentionStore | StatisticsStore:
    try:
        return AttentionStore(path, partial=partial)
    except AtlasError as error:
        if StatisticsStore.schema not in str(error):
            raise
    return StatisticsStore(path, partial=partial)


def _table(
    store: AttentionStore | StatisticsStore, id: str, kind: str, args: argparse.Namespace
) -> tuple[np.ndarray, list[str], list[str], str]:
    """(values, row names, column names, title): attention of a layer, or a statistic by layer and head."""
    if isinstance(store, AttentionStore):
        layers, heads, *_ = store.shape(id, kind)
        layer, head = _inside("layer", args.layer, layers), args.head
        attn_HQK = store.read(id, kind, layers=layer)[0]
        query, key = (_names(store.axis(id, axis)) for axis in store.kinds[kind])
        if head is None:
            return attn_HQK.mean(0), query, key, f"{kind}, layer {layer}, mean of {heads} heads"
        return attn_HQK[_inside("head", head, heads)], query, key, f"{kind}, layer {layer}, head {head}"
    known = store.names(id, kind)
    name = args.statistic or ("mass" if "mass" in known else known[0])
    values = store.read(id, kind, name)
    if values.ndim < 3:
        raise AtlasError(f"{args.file}: {name}: {values.ndim} axes; choose one of {', '.join(known)}")
    layer_names = [f"layer {i}" for i in range(values.shape[0])]
    if name in ("mass", "norm_mass"):
        layer = _inside("layer", args.layer, values.shape[0])
        groups = store.groups[store.kinds[kind][1]]
        heads_HG = values[layer].mean(1)
        rows = [f"head {h}" for h in range(len(heads_HG))]
        return heads_HG, rows, groups, f"{kind}, {name} by head in layer {layer}, mean over queries"
    finite = np.where(np.isfinite(values), values, np.nan)
    by_head = np.nanmean(finite.reshape(*values.shape[:2], -1), -1)
    return by_head, layer_names, [f"head {h}" for h in range(by_head.shape[1])], f"{kind}, mean {name}"


def _inside(what: str, index: int, length: int) -> int:
    if not -length <= index < length:
        raise AtlasError(f"--{what}: {index} is outside 0..{length - 1}; give one of these")
    return index % length


def _names(axis: Axis) -> list[str]:
    return [t if r in ("text", "image") else f"{t} ({r})" for t, r in zip(axis.tokens, axis.roles)]


def _print(values: np.ndarray, rows: list[str], columns: list[str]) -> None:
    """Numbers if they fit, else shades relative to the largest value of the whole table."""
    label = min(24, max(len(name) for name in rows))
    top = float(np.nanmax(np.abs(values))) or 1.0
    if len(columns) * 8 <= WIDTH:
        print(" " * label, *(f"{name[:7]:>7}" for name in columns))
        for name, row in zip(rows, values):
            print(f"{name[:label]:<{label}}", *(f"{value:7.3f}" for value in row))
        return
    # Wide tables: one character for several neighbouring columns, shaded by their maximum.
    step = -(-len(columns) // WIDTH)
    print(f"{'':<{label}} columns: {columns[0]} … {columns[-1]} ({step} per character, darkest {top:.3f})")
    for name, row in zip(rows, np.nan_to_num(np.abs(values))):
        cells = [row[i : i + step].max() / top for i in range(0, len(row), step)]
        shown = "".join(SHADES[min(len(SHADES) - 1, int(cell * len(SHADES)))] for cell in cells)
        print(f"{name[:label]:<{label}} {shown}")


def _draw(path: Path, values: np.ndarray, rows: list[str], columns: list[str], title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from attention_atlas.files import atomic_path

    known = plt.gcf().canvas.get_supported_filetypes()
    if path.suffix.lstrip(".") not in known:
        raise AtlasError(f"--png: '{path}': unknown type{did_you_mean(path.suffix.lstrip('.'), known)}")
    plt.close("all")
    size = (2.5 + 0.17 * len(columns), 1.8 + 0.17 * len(rows))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    # The first word can only attend to BOS: without a limit this 1.0 makes all else dark.
    limit = float(np.nanpercentile(np.abs(values), 99)) or None
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.set_title(f"{title}\n(colours end at the 99th percentile)", fontsize=8)
    figure.colorbar(image)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
