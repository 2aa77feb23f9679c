"""Norms through weights that accelerate has offloaded, and weights that have no usable values."""

import copy

import capture_models
import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from torch import nn

from attention_atlas.capture import Capture, role_groups, validate
from attention_atlas.errors import AtlasError

NORMS = ["head_norm", "norm_mass", "norm_rows", "norm_summed"]


def norms(model, inputs):
    groups = role_groups([["text"] * 7] * 2)
    captured = Capture(model, NORMS, groups=groups, rows=[-1])(**inputs)
    (kind,) = captured.values()
    return [kind.values[name] for name in NORMS]


def on_cpu(model, folder):
    cpu_offload(model, torch.device("cpu"))


def on_disk(model, folder):
    disk_offload(model, str(folder), torch.device("cpu"))


def by_device_map(model, folder):
    layers = "layers" if hasattr(model, "layers") else "h"
    devices = {name: "cpu" for name, _ in model.named_children() if name != layers}
    devices |= {f"{layers}.0": "cpu", f"{layers}.1": "disk"}
    dispatch_model(model, devices, main_device="cpu", offload_dir=str(folder), force_hooks=True)


@pytest.mark.parametrize("offload", [on_cpu, on_disk, by_device_map])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_of_offloaded_models_are_those_of_the_model_in_memory(name, offload, dtype, tmp_path):
    model, inputs = capture_models.tiny(name)
    model = copy.deepcopy(model.base_model).to(dtype)
    expected = norms(model, inputs)
    offload(model, tmp_path)
    assert any(p.is_meta for p in model.parameters())
    for _ in range(2):
        for a, b in zip(norms(model, inputs), expected):
            assert torch.equal(a, b)
    assert any(p.is_meta for p in model.parameters())  # nothing stays in memory
    assert len(validate(model, lambda: model(**inputs))) == 2


def test_a_weight_without_values_is_an_error():
    model, inputs = capture_models.tiny("llama")
    model = copy.deepcopy(model)
    attention = model.model.layers[1].self_attn
    real = attention.o_proj
    attention.o_proj = nn.Linear(32, 32, bias=False, device="meta")
    with pytest.raises(
        AtlasError, match=r"layers\.1\.self_attn: the weight of its .*'o_proj' is on the meta"
    ):
        norms(model, inputs)
    attention.o_proj = real
    real.weight = nn.Parameter(torch.ones(32, 32, dtype=torch.int8), requires_grad=False)
    with pytest.raises(
        AtlasError, match=r"layers\.1\.self_attn: the weight of .* is quantised \(torch.int8\)"
    ):
        norms(model, inputs)


def test_norms_follow_the_weights():
    """One capture, used before and after the model's weights change."""
    model, inputs = capture_models.tiny("llama")
    model = copy.deepcopy(model)
    capture = Capture(model, ["head_norm"])
    before = next(iter(capture(**inputs).values())).head_norm
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight = nn.Parameter(2 * layer.self_attn.o_proj.weight)
    after = next(iter(capture(**inputs).values())).head_norm
    assert torch.allclose(after[:, 0], 2 * before[:, 0], atol=1e-6)
