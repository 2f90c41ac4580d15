"""Products with few rows give the same numbers in either order, and the model stays as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear

from fakes import absolute_model, sliding_model
from fusing import PROMPTS, bound, decode, hooks
from logitkit.processors.engine import forward_plan as plan
from logitkit.processors.engine import thin_matmul as thin
from logitkit.processors.engine.kv_tree import KVTree
from logitkit.registry.laws import tiny_model


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=2), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_equals_linear(lead: list[int], inputs: int, outputs: int, with_bias: bool) -> None:
    """For any shape, with and without a bias; the result is contiguous, as the layers of models expect."""
    rows, weight, bias = torch.randn(*lead, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    got = thin.weight_times_rows(rows, weight, bias if with_bias else None)
    torch.testing.assert_close(got, linear(rows, weight, bias if with_bias else None))
    assert got.is_contiguous()


@pytest.mark.parametrize(
    ("rows", "dtype", "count"), [(2, "float32", 1), (1, "float32", 0), (9, "float32", 0), (2, "float64", 0)]
)
def test_only_few_fp32_rows_are_swapped(monkeypatch: pytest.MonkeyPatch, rows: int, dtype: str, count: int) -> None:
    """Single rows, many rows and other dtypes use the order of torch."""
    calls, swapped = [], thin.weight_times_rows
    monkeypatch.setattr(thin, "weight_times_rows", lambda *given: (calls.append(1), swapped(*given))[1])
    layer = torch.nn.Linear(4, 3, dtype=getattr(torch, dtype))
    thin.thin_twin(layer)(torch.ones(rows, 4, dtype=getattr(torch, dtype)))
    assert len(calls) == count


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let every forward of few rows run in the other order; the list gets an entry for each product."""
    found, swapped = list[int](), thin.weight_times_rows
    monkeypatch.setattr(thin, "weight_times_rows", lambda *given: (found.append(1), swapped(*given))[1])
    for module in (plan, thin):
        monkeypatch.setattr(module, "is_faster", lambda model, rows: True)
    return found


@pytest.mark.parametrize(
    ("chain", "streams", "prompts"),
    [
        ("cfg(2.0)", "fused", None),
        ("cfg(2.0)", "lazy", None),
        ("mti(negative='abc', threshold=0.1)", "lazy", ["a red prompt"]),
    ],
)
def test_thin_products_give_the_same_tokens(
    products: list[int], monkeypatch: pytest.MonkeyPatch, chain: str, streams: str, prompts: Any
) -> None:
    """In fused forwards, and in those of a second prompt and of a text behind the rows."""
    got = decode(bound(chain, prompts=prompts or PROMPTS), streams)
    assert products
    monkeypatch.undo()
    assert torch.equal(decode(bound(chain, prompts=prompts or PROMPTS), "lazy"), got)


def test_thin_products_of_a_tree_give_the_same_probabilities(
    products: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three texts that part behind a prompt are read in one forward of three tokens."""

    def read() -> list[Any]:
        tree = KVTree(tiny_model(), fixed=False)
        prompt = tree.read(tree.root, [1, 2, 3], conditioning=True)
        return [node.logp for node in tree.grow([(prompt, [token]) for token in (40, 50, 60)])]

    got = read()
    assert products
    monkeypatch.undo()
    for one, other in zip(got, read(), strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_a_failing_forward_leaves_no_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the third forward."""
    monkeypatch.setattr(plan, "is_faster", lambda model, rows: True)
    model, seen = tiny_model(9), []
    before = hooks(model)

    def fails(*_: Any) -> None:
        seen.append(1)
        if len(seen) == 3:
            raise RuntimeError("stop")

    call = bound("cfg(2.0)", model)  # binding checks the model's cache with forwards of its own
    hook = model.model.register_forward_hook(fails)
    with pytest.raises(RuntimeError, match="stop"):
        decode(call, "fused")
    hook.remove()
    assert hooks(model) <= before


def test_orders_are_timed_once_for_each_model() -> None:
    """Models without a large weight are not timed, and one row or many rows never use the second order."""
    assert not thin.is_faster(tiny_model(), 2) and not thin.is_faster(tiny_model(), 1)
    large = torch.nn.Sequential(torch.nn.Linear(600, 600))
    assert thin.is_faster(large, 2) == thin.is_faster(large, 2) and not thin.is_faster(large, 50)


@pytest.mark.parametrize("make", [tiny_model, absolute_model, sliding_model])
def test_a_twin_computes_the_same_with_the_parts_of_the_model(make: Any) -> None:
    """Weights and hooks are those of the model, whose layers stay what they are; parts without layers are shared."""
    model, seen = make(), []
    kinds = [type(part) for part in model.modules()]
    twin, ids = thin.thin_twin(model), torch.tensor([[1, 2, 3]])
    layer = next(part for part in model.modules() if type(part) is torch.nn.Linear)
    hook = layer.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        got = twin(input_ids=ids).logits
        assert len(seen) == 1
        torch.testing.assert_close(got, model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    hook.remove()
    assert [type(part) for part in model.modules()] == kinds
    own, others = dict(model.named_parameters()), dict(twin.named_parameters())
    assert own.keys() == others.keys() and all(own[name] is others[name] for name in own)
    shared = {type(part) for part in twin.modules()} - {*kinds}
    assert {kind for kind in shared if not issubclass(kind, thin._Twin)} == {thin.ThinLinear}


def test_what_a_twin_keeps_its_model_keeps() -> None:
    """transformers marks a model whose layers have the hooks that collect hidden states; they are put there once."""
    model, ids = copy.deepcopy(tiny_model()), torch.tensor([[1, 2, 3]])
    for twin in (True, False, True):
        module = thin.thin_twin(model) if twin else model
        assert len(module(input_ids=ids, output_hidden_states=True).hidden_states) == 3
