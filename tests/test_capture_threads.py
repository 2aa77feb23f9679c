"""Threads, captures inside captures, gradient checkpointing and compiled models."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import capture_models
import pytest
import torch
from torch import nn

from attention_atlas.capture import Capture
from attention_atlas.capture.patches import patch_order
from attention_atlas.capture.seam import attend, current
from attention_atlas.errors import AtlasError


def entropies(captured):
    return {kind: found.entropy for kind, found in captured.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)


def in_threads(jobs):
    """Results of the jobs, all of which start at once."""
    start = threading.Barrier(len(jobs))

    def run(job):
        start.wait()
        return [job() for _ in range(25)]

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


@pytest.mark.parametrize("names", [("llama", "llama"), ("llama", "bert"), ("lxmert", "lxmert")])
def test_threads_do_not_mix_results(names):
    def job(name):
        model, inputs = capture_models.tiny(name)
        return lambda: entropies(Capture(model, ["entropy"])(**inputs))

    jobs = [job(name) for name in names]
    expected = [j() for j in jobs]
    for found, right in zip(in_threads(jobs), expected):
        assert all(same(one, right) for one in found)
    model, _ = capture_models.tiny(names[0])
    assert model.config._attn_implementation in ("sdpa", "eager") and current() is None
    assert not model._forward_pre_hooks


def test_one_capture_object_in_two_threads_gives_each_its_own_result():
    model, inputs = capture_models.tiny("llama")
    capture = Capture(model, ["entropy"])
    other = {**inputs, "input_ids": inputs["input_ids"].flip(1)}
    jobs = [lambda i=i: entropies(capture(**i)) for i in (inputs, other)]
    expected = [j() for j in jobs]
    assert not same(*expected)
    for found, right in zip(in_threads(jobs), expected):
        assert all(same(one, right) for one in found)


def test_a_thread_without_a_capture_is_left_alone():
    model, inputs = capture_models.tiny("llama")
    with torch.no_grad():
        plain = model(**inputs).logits
    with torch.no_grad(), Capture(model, ["entropy"]) as capture, ThreadPoolExecutor(1) as pool:
        model(**inputs)
        kept = entropies(capture.result())

        def other():
            with torch.no_grad():
                return model(input_ids=inputs["input_ids"][:, :3]), model(**inputs).logits

        assert torch.equal(pool.submit(other).result()[1], plain)
        assert same(entropies(capture.result()), kept)
    with Capture(model, ["entropy"]) as capture, ThreadPoolExecutor(1) as pool:
        pool.submit(other).result()
    with pytest.raises(AtlasError, match="in the same thread"):
        capture.result()


def test_entered_twice_is_an_error_and_the_capture_still_works():
    model, inputs = capture_models.tiny("llama")
    capture = Capture(model, ["entropy"])
    with torch.no_grad(), capture:
        with pytest.raises(AtlasError, match="already active"), capture:
            pass
        model(**inputs)
    expected = entropies(capture.result())
    assert current() is None and same(expected, entropies(capture(**inputs)))


@pytest.mark.parametrize("name", ["llama", "vilt"])
def test_a_capture_inside_another_one_takes_over(name):
    model, inputs = capture_models.tiny(name)
    expected = entropies(Capture(model, ["entropy"]).run(lambda: capture_models.run(model, inputs)))
    with torch.no_grad(), Capture(model, ["entropy"]) as outer:
        capture_models.run(model, inputs)
        with Capture(model, ["entropy"]) as inner:
            capture_models.run(model, inputs)
    assert same(entropies(inner.result()), expected) and same(entropies(outer.result()), expected)


def test_another_model_inside_a_capture_is_not_recorded():
    model, inputs = capture_models.tiny("llama")
    other, its_inputs = capture_models.tiny("bert")
    with torch.no_grad(), Capture(model, ["entropy"]) as capture:
        model(**inputs)
        other(**its_inputs)
    assert list(capture.result()) == ["model.layers.*.self_attn"]


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_records_the_first_pass_only(reentrant):
    model, inputs = capture_models.tiny("llama")
    model = copy.deepcopy(model).train()
    expected = entropies(Capture(model, ["entropy"])(**inputs))
    plain = model(**inputs, labels=inputs["input_ids"])
    plain.loss.backward()
    gradient = model.model.layers[0].self_attn.q_proj.weight.grad.clone()
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    with Capture(model, ["entropy"]) as capture:
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert same(entropies(capture.result()), expected)
    assert torch.allclose(model.model.layers[0].self_attn.q_proj.weight.grad, gradient, atol=1e-6)


def test_compiled_models_keep_their_names_and_are_captured():
    model, inputs = capture_models.tiny("llama")
    model = copy.deepcopy(model)
    expected = entropies(Capture(model, ["entropy"])(**inputs))
    whole = torch.compile(model, backend="eager")
    with torch.no_grad():
        whole(**inputs)  # compiled without a capture
    found = Capture(whole, ["entropy"], layers="model.layers.*")(**inputs)
    assert same(entropies(found), expected)
    assert found["model.layers.*.self_attn"].names == ["model.layers.0.self_attn", "model.layers.1.self_attn"]
    model.model = torch.compile(model.model, backend="eager")
    assert same(entropies(Capture(model, ["entropy", "head_norm"])(**inputs)), expected)
    with torch.no_grad():
        assert whole(**inputs).logits.isfinite().all()


def test_the_seam_compiles_into_one_graph():
    class Own(nn.Module):
        def forward(self, x):
            return attend(self, x, x, x)

    model, x = Own(), torch.randn(1, 2, 4, 8)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), model(x))


def test_patch_order_inside_itself_leaves_the_model_as_it_was():
    model, inputs = capture_models.tiny("vilt")
    with torch.no_grad(), patch_order(model, seed=1) as outer:
        with patch_order(model, seed=2) as inner:
            model(**inputs)
        model(**inputs)
    assert inner.index_BP2.shape == outer.index_BP2.shape
    assert "visual_embed" not in vars(model.embeddings)
