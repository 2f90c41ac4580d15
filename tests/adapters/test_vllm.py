"""Chains under the interfaces of vLLM: contexts of the V2 model runner built by hand, and stand-ins for base classes.

`vllm_equals_transformers.py` compares the tokens of the real engine under the V1 model runner; it is run by hand. The
V2 model runner needs Triton.
"""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fresh import ROOT
from logitkit.adapters import tokens_only
from logitkit.errors import ModeError, ParameterError
from logitkit.processors.engine.composite import Composite
from logitkit.processors.ngram import NgramTable
from logitkit.registry import Chain
from logitkit.registry.laws import tiny_model, tiny_tokenizer

SLOTS, LENGTH = 4, 40
CHAINS = ["frequency_penalty(0.7)", "no_repeat_ngram(2)", "ngram_context(weight=0.3)", None]
VOCABULARY = tiny_model().config.vocab_size


def bound(chain: Chain, prompt: list[int]) -> Composite:
    """Return a chain bound to a prompt."""
    return tokens_only.bound(chain, "vllm", tiny_tokenizer(), prompt, ends=[tiny_tokenizer().eos_token_id])


class Runner:
    """The states of requests of a V2 model runner, on the CPU; it lays out a step as that runner does."""

    def __init__(self) -> None:
        self.all_token_ids = SimpleNamespace(gpu=torch.zeros(SLOTS, LENGTH, dtype=torch.int32))
        self.prompt_len = SimpleNamespace(np=np.zeros(SLOTS, dtype=np.int32))
        self.rows: dict[int, list[int]] = {}
        self.chains: dict[int, str | None] = {}

    def enter(self, slot: int, prompt: list[int], output: list[int], chain: str | None) -> Any:
        """Put a request into a slot, after preemption with tokens of its output; return its sampling parameters."""
        self.rows[slot], self.chains[slot], self.prompt_len.np[slot] = [*prompt, *output], chain, len(prompt)
        self.all_token_ids.gpu[slot] = 0
        self.write(slot)
        return SimpleNamespace(extra_args=None if chain is None else {"logitkit": chain})

    def write(self, slot: int) -> None:
        """Write the committed tokens of a slot to the device."""
        row = torch.tensor(self.rows[slot], dtype=torch.int32)
        self.all_token_ids.gpu[slot, : len(row)] = row

    def step(self, drafts: dict[int, list[int]]) -> tuple[Any, list[tuple[int, list[int]]]]:
        """Return the layout of a step in which these slots have these drafts, and the slot and tokens of each row."""
        rows = [
            (slot, local, [*self.rows[slot], *drafted[:local]])
            for slot, drafted in drafts.items()
            for local in range(len(drafted) + 1)
        ]
        context = SimpleNamespace(
            expanded_idx_mapping=torch.tensor([slot for slot, _, _ in rows], dtype=torch.int32),
            expanded_local_pos=torch.tensor([local for _, local, _ in rows], dtype=torch.int32),
            idx_mapping_np=np.array(list(drafts), dtype=np.int32),
            input_ids=torch.tensor([tokens[-1] for _, _, tokens in rows], dtype=torch.int32),
            pos=torch.tensor([len(tokens) - 1 for _, _, tokens in rows]),
        )
        return context, [(slot, tokens) for slot, _, tokens in rows]


def slots_of(runner: Runner) -> Any:
    """Return the chains in the slots of a runner."""
    from logitkit.adapters.vllm_slots import SlotChains

    return SlotChains(runner, lambda params: Chain(params.extra_args["logitkit"]) if params.extra_args else None, bound)


def expected(runner: Runner, rows: list[tuple[int, list[int]]], logits: torch.Tensor) -> torch.Tensor:
    """Return the scores of rows, each by a processor of its own that has seen nothing before."""
    want = logits.clone()
    for row, (slot, tokens) in enumerate(rows):
        if (chain := runner.chains[slot]) is not None:
            prompt = runner.rows[slot][: runner.prompt_len.np[slot]]
            want[row] = bound(Chain(chain), prompt)(torch.tensor([tokens]), logits[row][None])[0]
    return want


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_each_row_has_the_scores_of_its_own_tokens(data: st.DataObject) -> None:
    """Slots are recycled, rows reordered, drafts accepted and refused, and requests without a chain between them."""
    runner, ids = Runner(), st.lists(st.integers(60, 66), min_size=1, max_size=5)
    slots = slots_of(runner)
    for _ in range(data.draw(st.integers(1, 5))):
        for slot in data.draw(st.lists(st.integers(0, SLOTS - 1), max_size=2, unique=True)):
            params = runner.enter(slot, data.draw(ids), data.draw(ids)[1:], data.draw(st.sampled_from(CHAINS)))
            assert slots.add_request(slot, params) is (params.extra_args is not None)
        order = data.draw(st.permutations(list(runner.rows)))
        if not order:
            continue
        context, rows = runner.step({slot: data.draw(ids)[1:] for slot in order})
        logits = torch.randn(len(rows), VOCABULARY)
        want = expected(runner, rows, logits)
        torch.testing.assert_close(slots.apply(logits.clone(), context), want)
        for slot in order:  # committed tokens, which need not be the drafts
            runner.rows[slot] += data.draw(ids)[:2]
            runner.write(slot)


def test_nothing_is_read_without_a_chain() -> None:
    """The scores are the same object where no request of the step has a chain."""
    runner = Runner()
    slots = slots_of(runner)
    slots.add_request(0, runner.enter(0, [65], [], CHAINS[0]))
    slots.add_request(1, runner.enter(1, [66], [], None))
    context, rows = runner.step({1: [65]})
    logits = torch.randn(len(rows), VOCABULARY)
    assert slots.apply(logits, context) is logits and slots.apply(logits, context).data_ptr() == logits.data_ptr()


class FirstInterface:
    """Stands in for the base class of the V1 model runner."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.made_for = device

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Stands in for the loop over requests."""
        return logits + 1


class SecondInterface:
    """Stands in for the base class of the V2 model runner."""


@pytest.fixture(name="vllm", params=["both", "first", "second"])
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The adapter, imported beside a vLLM with these interfaces."""
    first, second = types.ModuleType("v1"), types.ModuleType("v2")
    if request.param != "second":
        first.AdapterLogitsProcessor = FirstInterface  # type: ignore[attr-defined]
    if request.param != "first":
        second.LogitsProcessor = SecondInterface  # type: ignore[attr-defined]
    for name, module in (
        ("vllm", types.ModuleType("vllm")),
        ("vllm.v1.sample.logits_processor", first),
        ("vllm.v1.worker.gpu.sample.logits_processor", second),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "logitkit.adapters.vllm", raising=False)
    yield importlib.import_module("logitkit.adapters.vllm")
    sys.modules.pop("logitkit.adapters.vllm", None)


def config() -> Any:
    """Return what the adapter reads of an engine's configuration."""
    ends = {"eos_token_id": tiny_tokenizer().eos_token_id}
    return SimpleNamespace(model_config=SimpleNamespace(tokenizer="", try_get_generation_config=lambda: ends))


def test_the_processor_has_the_interfaces_that_are_installed(vllm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each runner constructs it in its own way and calls its own methods."""
    monkeypatch.setattr(vllm.ChainProcessor, "_own_tokenizer", lambda self: tiny_tokenizer())
    bases = vllm.ChainProcessor.__mro__
    prompt, output = [65, 66, 65], [66]
    logits = torch.randn(VOCABULARY)
    want = bound(Chain(CHAINS[0]), prompt)(torch.tensor([[*prompt, *output]]), logits[None])[0]
    params = SimpleNamespace(extra_args={"logitkit": CHAINS[0]})
    if FirstInterface in bases:
        processor = vllm.ChainProcessor(config(), torch.device("cpu"), False)
        assert processor.made_for == torch.device("cpu") and torch.equal(processor.apply(logits), logits + 1)
        process = processor.new_req_logits_processor(params)
        assert torch.equal(process(prompt, output, logits), want)
        assert processor.new_req_logits_processor(SimpleNamespace(extra_args=None)) is None
    if SecondInterface in bases:
        runner = Runner()
        processor = vllm.ChainProcessor(config(), runner)
        assert processor.add_request(2, runner.enter(2, prompt, output, CHAINS[0]))
        context, _ = runner.step({2: []})
        assert torch.equal(processor.apply(logits[None].clone(), context)[0], want)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"logitkit": "cfg(1.5)"}, ModeError, "cfg: cannot run in vllm"),
        ({"logitkit": 3}, ParameterError, "a chain as text"),
        ({"Logit-kit": "top_k(3)"}, ParameterError, "spelled 'logitkit'"),
        ({"logitskit": "top_k(3)"}, ParameterError, "spelled 'logitkit'"),
        ({"logitkit": "usdc()"}, ValueError, "did you mean 'uscd'"),
    ],
)
def test_wrong_arguments_are_refused_when_the_request_arrives(
    vllm: Any, given: dict[str, Any], error: type[Exception], says: str
) -> None:
    """As a ValueError, which vLLM reports to the client; a misspelt key too, which would be ignored in silence."""
    with pytest.raises(error, match=says):
        vllm.ChainProcessor.validate_params(SimpleNamespace(extra_args=given))
    assert issubclass(error, ValueError)


def test_arguments_of_others_are_theirs(vllm: Any) -> None:
    """Another processor's argument, a right chain, and none."""
    for arguments in (None, {}, {"bias": 3}, {"logitkit": "top_k(3)", "bias": 1}):
        vllm.ChainProcessor.validate_params(SimpleNamespace(extra_args=arguments))
    assert vllm.extra_args("top_k(3)", tiny_tokenizer()) == {"logitkit": "top_k(top_k=3)"}


def test_a_vllm_without_either_interface_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the names that are looked for."""
    for name in ("vllm", "vllm.v1.sample.logits_processor", "vllm.v1.worker.gpu.sample.logits_processor"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.delitem(sys.modules, "logitkit.adapters.vllm", raising=False)
    with pytest.raises(ImportError, match="AdapterLogitsProcessor or vllm"):
        importlib.import_module("logitkit.adapters.vllm")


def test_the_example_of_the_documentation(vllm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As it stands, with a stand-in for the engine, which checks what it is given."""
    page = (ROOT / "docs" / "other_engines.md").read_text()
    (example,) = [block for block in re.findall(r"```py\n(.*?)```", page, re.DOTALL) if "from vllm" in block]
    checked: list[dict[str, str]] = []

    def generate(prompts: list[str], params: Any) -> None:
        vllm.ChainProcessor.validate_params(params)
        checked.append(params.extra_args)

    def engine(path: str, logits_processors: list[type]) -> Any:
        assert logits_processors == [vllm.ChainProcessor]
        return SimpleNamespace(get_tokenizer=tiny_tokenizer, generate=generate)

    monkeypatch.setattr(sys.modules["vllm"], "LLM", engine, raising=False)
    monkeypatch.setattr(sys.modules["vllm"], "SamplingParams", SimpleNamespace, raising=False)
    monkeypatch.chdir(tmp_path)
    NgramTable.train(["It was the text"], tiny_tokenizer()).save("book.safetensors")
    exec(compile(example, "other_engines.md", "exec"), {})
    assert "ngram_style" in checked[0]["logitkit"]
