"""What a capture of a family is compared with: the weights, values and projections of its own eager code.

python tests/family_checks.py --write       # docs/families.md, after checking every family
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from capture_families import FAMILIES, family
from capture_tiny import IMAGE
from torch import Tensor, nn

from attention_atlas.capture import Capture, Groups, role_groups, roles_of, token_boxes, validate
from attention_atlas.capture.agreement import distance, tensors
from attention_atlas.capture.want import without
from attention_atlas.errors import AtlasError

PAGE = Path(__file__).parent.parent / "docs" / "families.md"
UNCUT = SimpleNamespace(
    do_image_splitting=False, crop_to_patches=False, max_patches=1, split_image=False,
    do_center_crop=False, do_pad=False,
)  # fmt: skip
EXACT = ["mass", "entropy", "rows"]
NORMS = ["head_norm", "norm_mass"]
HEAD = """# Model families

These vision-language families of transformers are tested. `tests/test_capture_families.py` builds a tiny
model with random weights for each row and checks that

- attention, mass, entropy and rows of every captured module equal those of the family's own eager
  implementation (to 1e-5), and so do the norm statistics wherever a linear layer reads the context unchanged;
- the model's output is the same with and without the capture (to 1e-4);
- every image token has one role and one box entry.

`python tests/family_checks.py --write` regenerates this page.

- *images*: number of images in each text of the test batch; *padded*: whether the batch has padding on the
  left.
- *decoder*, *vision*, *cross*: number of captured attention modules that each alias of `layers` selects;
  *other*: modules that none of them selects.
- *norms*: number of captured modules whose norm statistics were compared, of all captured modules, or the
  reason why there are none.
- *roles*: whether image tokens can be located in the sequence.
- *boxes*: whether `token_boxes` can locate image tokens in the image. "no place": they are queries, which
  have no location; "no": the geometry of the family is not implemented, or there are no image tokens in the
  sequence. Mllama reads images by cross-attention; `image_keys` locates its keys.
- *left out*: modules whose attention bypasses the capture; `validate` fails unless `layers` excludes them
  with `!`. Linear attention has no weights and is not listed.

| family | class | images | padded | decoder | vision | cross | other | norms | roles | boxes | left out |
|---|---|---|---|---|---|---|---|---|---|---|---|
"""


@dataclass
class Call:
    """One call of an eager attention function: its module, weights (B,H,Q,K), values, context (B,Q,H,D)."""

    module: nn.Module
    weights: Tensor
    value: Tensor
    context: Tensor
    projection: nn.Linear | None = None


def eager_calls(model: Any, inputs: dict[str, Any], complete: bool = True) -> list[Call]:
    """What the model's eager functions return, and the linear layer that reads each context unchanged."""
    from transformers import AttentionInterface

    calls: list[Call] = []
    plain = AttentionInterface.get_interface

    def get_interface(self: Any, name: Any, default: Any) -> Any:
        function = plain(self, name, default)

        def record(module: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
            context, weights = function(module, query, key, value, *rest, **named)
            calls.append(Call(module, weights, value, context))
            return context, weights

        return record

    def projecting(layer: Any, given: Any) -> None:
        # A tower that attends once for each image projects all contexts together.
        together = [c for c in calls if c.module is calls[-1].module and c.projection is None]
        if together and sum(c.context.numel() for c in together) == given[0].numel():
            whole = torch.cat([c.context for c in together], 1)
            if torch.equal(given[0].reshape(-1), whole.reshape(-1)):
                for call in together:
                    call.projection = layer

    handles = [m.register_forward_pre_hook(projecting) for m in model.modules() if isinstance(m, nn.Linear)]
    AttentionInterface.get_interface = get_interface
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
        with torch.no_grad():
            output = model(**inputs, output_attentions=True)
    finally:
        AttentionInterface.get_interface = plain
        model.set_attn_implementation(before)
        for handle in handles:
            handle.remove()
    for given in (complete and output.get("attentions")) or ():
        assert given is None or any(call.weights is given for call in calls), "not what the model returns"
    return calls


def check(name: str) -> str:
    """The family's line of the table. Raises AssertionError where a value is wrong."""
    model, inputs = family(name)
    run = lambda: model(**inputs)  # noqa: E731
    with torch.no_grad():
        plain = tensors(run())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names what is not captured
        capture = Capture(model, ["attn"])
        found = capture.run(run)
    layers = without(found.outside)
    shapes = {kind: result.attn.shape for kind, result in found.items()}
    groups = {kind: halves(shape[0], shape[-1]) for kind, shape in shapes.items()}
    asked = {"rows": {kind: [0, -1] for kind in shapes}, "groups": groups}
    norms = ""
    try:
        stats = Capture(model, EXACT + NORMS, layers=layers, backend="fused", **asked).run(run)
    except AtlasError as error:
        assert "gate" in str(error), error
        norms = "no: a gate or a norm before the projection"
        stats = Capture(model, EXACT, layers=layers, backend="fused", **asked).run(run)
    assert distance(plain, tensors(stats.output)) <= 1e-4, name
    calls = eager_calls(model, inputs, complete=not found.outside)
    counts = dict.fromkeys(("decoder", "vision", "cross", ""), 0)
    compared: dict[str, bool] = {}
    for kind, result in found.items():
        nth = int(kind.partition("#")[2] or 1) - 1
        for index, module in enumerate(result.names):
            counts[capture.sites.part(module)] += nth == 0
            own = [c for c in calls if c.module is capture.sites.modules[module]][nth]
            values = {n: v[:, index] for n, v in stats[kind].values.items()}
            compare(kind, own, result.attn[:, index], values, inputs["attention_mask"].bool())
            compared[module] = own.projection is not None and "head_norm" in values
    for pattern in layers[1:]:
        assert found.outside, pattern
    validate(model, run, layers=layers)
    roles, boxes = places(name, model, inputs)
    images = ", ".join(str(len(row)) for row in FAMILIES[name].tokens)
    padded = "yes" if bool((inputs["attention_mask"][:, 0] == 0).any()) else "no"
    norms = norms or f"{sum(compared.values())} of {len(compared)}"
    cells = [images, padded, *(str(counts[part]) for part in counts), norms, roles, boxes]
    left = ", ".join(f"`{p[1:]}`" for p in layers[1:])
    return f"| {name} | `{FAMILIES[name].model}` | {' | '.join(cells)} | {left} |\n"


def halves(batch: int, keys: int) -> Groups:
    """Two groups of keys that overlap."""
    at = torch.arange(keys)
    return Groups(["even", "later"], torch.stack([at % 2 == 0, at > keys // 3], -1).expand(batch, -1, -1))


def compare(kind: str, own: Call, attn: Tensor, stats: dict[str, Tensor], visible_BT: Tensor) -> None:
    """All statistics of one call against the eager weights, at queries that see something and are no padding:
    there the model's own implementations differ."""
    seen = attn.sum(-1, keepdim=True) > 0.5
    if attn.shape[::2] == visible_BT.shape:
        seen = seen & visible_BT[:, None, :, None]
    weights = own.weights.expand_as(attn)
    member = halves(len(attn), attn.shape[-1]).member_BKG[:, None].float()
    expected = {"mass": weights @ member, "entropy": -torch.xlogy(weights, weights).sum(-1)}
    expected |= {"rows": weights[:, :, [0, -1]]}
    close(kind, "attn", attn * seen, weights * seen)
    if own.projection is not None and "head_norm" in stats:
        heads, size = attn.shape[1], own.value.shape[-1]
        weight_HDM = own.projection.weight.T.reshape(heads, size, -1)
        value = own.value.repeat_interleave(heads // own.value.shape[1], 1)
        f_BHKM = torch.einsum("bhkd,hdm->bhkm", value, weight_HDM)
        expected["norm_mass"] = weights @ (member * f_BHKM.norm(dim=-1)[..., None])
        expected["head_norm"] = (weights @ f_BHKM).norm(dim=-1)
    for name, value in expected.items():
        if name in ("mass", "entropy", "head_norm", "norm_mass"):
            mask = seen if value.ndim == 4 else seen[..., 0]
            close(kind, name, stats[name] * mask, value * mask)
        elif name == "rows":
            close(kind, name, stats[name] * seen[:, :, [0, -1]], value * seen[:, :, [0, -1]])


def close(kind: str, name: str, a: Tensor, b: Tensor) -> None:
    error = float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1.0))
    assert error <= 1e-5, (kind, name, error)


def places(name: str, model: Any, inputs: dict[str, Any]) -> tuple[str, str]:
    """(roles, boxes) columns: whether image tokens are found, and whether their boxes are."""
    tokens = FAMILIES[name].tokens
    try:
        roles = roles_of(inputs, model.config)
    except AtlasError as error:
        assert "no position of input_ids is an image" in str(error) and not any(map(sum, tokens))
        return "not in the sequence", "no"
    assert [row.count("image") for row in roles] == [sum(row) for row in tokens], name
    assert [r == "pad" for row in roles for r in row] == (inputs["attention_mask"] == 0).flatten().tolist()
    is_image = inputs["input_ids"] == IMAGE
    assert [r == "image" for row in roles for r in row] == is_image.flatten().tolist()
    by_role(model, inputs, roles, is_image)
    sizes = [(48, 48)] * sum(map(len, tokens))
    try:
        cut = [token_boxes(model.config, inputs, sizes, UNCUT, row) for row in range(len(tokens))]
    except AtlasError as error:
        assert "geometry is not known" in str(error), error
        return "yes", "no"
    first = 0
    for (_, image), row in zip(cut, tokens):
        assert [int((image == first + n).sum()) for n in range(len(row))] == list(row), name
        first += len(row)
    return "yes", "no place" if cut[0][0].isnan().all() else "yes"


def by_role(model: Any, inputs: dict[str, Any], roles: list[list[str]], is_image: Tensor) -> None:
    """Mass on the image, in the decoder that reads it."""
    if "decoder_input_ids" in inputs:
        return
    groups = role_groups(roles)
    captured = Capture(model, ["mass", "attn"], groups=groups, layers="decoder")(**inputs)
    (kind,) = captured.values()
    by_hand = (kind.attn * is_image[:, None, None, None]).sum(-1)
    assert torch.allclose(kind.mass[..., groups.names.index("image")], by_hand, atol=1e-5)
    assert not kind.mass[..., inputs["attention_mask"].shape[1] :, :].numel()


if __name__ == "__main__":
    page = HEAD
    for chosen in sys.argv[2:] or FAMILIES:
        try:
            line = check(chosen)
        except Exception as error:  # to see all of them
            line = f"{chosen}: {type(error).__name__}: {' '.join(str(error).split())[:300]}\n"
        print(line, end="", flush=True)
        page += line
    if sys.argv[1:2] == ["--write"]:
        PAGE.write_text(page, encoding="utf-8")
