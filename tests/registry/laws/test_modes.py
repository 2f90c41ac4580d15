"""Every mode of generating is right or refused for every processor, as the committed page says."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LogitsProcessor
from transformers.utils import logging as verbosity

import logitkit
from logitkit.errors import ModeError, PluginError, UnknownNameError
from logitkit.registry import Spec
from logitkit.registry.laws import MODES, check_modes, tiny_model, tiny_tokenizer
from logitkit.registry.laws.modes import OF_ARCHITECTURES, WAYS
from logitkit.registry.laws.tiny_architectures import ARCHITECTURES, is_available
from logitkit.registry.pages.modes_page import cells, entries_of, page

FAST = ("byte_ensemble", "cfg", "top_k")
PAGE = Path(__file__).parents[3] / "docs" / "modes.md"


AVAILABLE = [mode for mode in MODES if is_available(OF_ARCHITECTURES.get(mode, "llama"))]  # without PEFT: not all


def assert_as_on_the_page(name: str, modes: Sequence[str]) -> None:
    """Measure these modes and compare them with the page."""
    text = PAGE.read_text()
    reasons = [line.partition(") ")[2] for line in text.split("\n") if line.startswith("(")]
    known = list(reasons)
    measured = cells(name, check_modes(name, modes), reasons)
    assert reasons == known, "refused for a reason that the page does not tell"
    assert measured == {mode: entries_of(text)[name][mode] for mode in modes}


@pytest.mark.parametrize("name", logitkit.names())
def test_every_mode_is_right_or_refused(name: str) -> None:
    """The results equal the page; ``python -m logitkit.registry.pages.modes_page docs/modes.md`` writes it again."""
    assert_as_on_the_page(name, [*WAYS, "encoder_decoder"])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in logitkit.names()]
)
def test_every_architecture_is_right_or_refused(name: str) -> None:
    """The results equal the page; a second prompt, byte trees and a warper stand for all where time is short."""
    assert_as_on_the_page(name, [mode for mode in AVAILABLE if mode in OF_ARCHITECTURES])


def test_the_page_knows_every_processor_and_mode() -> None:
    """The page has a row for each registered processor and for no other, and an entry for each mode."""
    entries = entries_of(PAGE.read_text())
    assert set(entries) == set(logitkit.names())
    assert all(list(marks) == list(MODES) and "-" not in marks.values() for marks in entries.values())


def test_a_mode_is_measured_by_its_name() -> None:
    """An unknown name is an error that shows the closest one; an unmeasured mode has a dash."""
    with pytest.raises(UnknownNameError, match=r"no mode of generating named 'beam'; did you mean 'beams'\?"):
        check_modes("top_k", ["beam"])
    marks = entries_of(page({"top_k": check_modes("top_k", ["greedy"])}))["top_k"]
    assert marks.pop("greedy") == "yes" and set(marks.values()) == {"-"}


@pytest.mark.filterwarnings("ignore:Position ids are not supported")  # PEFT, at every prompt tuning
@pytest.mark.parametrize("name", OF_ARCHITECTURES.values())
def test_an_architecture_reads_what_it_is_given(name: str) -> None:
    """Each tiny model depends on its tokens, and on its image where it reads one."""
    if not is_available(name):
        pytest.skip("the package peft is not installed")
    architecture, tokenizer = ARCHITECTURES[name], tiny_tokenizer()
    model, inputs = architecture.model(0, tokenizer), architecture.inputs(1)

    def text(prompt: str, **changed: Tensor) -> list[str]:
        settings = inputs | changed | {"max_new_tokens": 6, "do_sample": False}
        return logitkit.generate(model, tokenizer, architecture.prefix + prompt, **settings).texts

    assert text("one") == text("one") != text("two")
    if architecture.images:
        assert text("one", pixel_values=-inputs["pixel_values"]) != text("one")


class Favours(LogitsProcessor):
    """Raises the score of the token id after the last one; right in every mode."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.scatter_add(1, (input_ids[:, -1:] + 1) % 250, torch.full((len(scores), 1), 3.0))


class ByPlace(Favours):
    """Sums token ids by the index of the row; wrong where rows change places."""

    sums: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        known = self.sums is not None and len(self.sums) == len(scores)
        self.sums = (self.sums if known else 0) + input_ids[:, -1]  # type: ignore[operator]
        return scores.scatter_add(1, self.sums[:, None] % 250, torch.full((len(scores), 1), 3.0))


class FromTheFirstCall(Favours):
    """Takes the length of its first rows as the length of the prompt."""

    start: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.start = input_ids.shape[1] if self.start is None else self.start
        return scores.index_add(
            1, torch.tensor([60 + input_ids.shape[1] - self.start]), torch.full((len(scores), 1), 3.0)
        )


class CountsPadding(Favours):
    """Counts padding as text."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.index_add(1, torch.tensor([60 + input_ids.shape[1]]), torch.full((len(scores), 1), 3.0))


class BreaksDown(Favours):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        raise RuntimeError("down")


class Refuses(Favours):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        raise ModeError("refuses: everything must be plain, got this; use another")


def spec_of(kind: type, monkeypatch: Any) -> Spec:
    """Return the Spec of a class of this file."""
    import sys
    import types

    module = types.ModuleType("their_modes")
    module.Kind = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_modes", module)
    return Spec(name="theirs", summary="s", source="s", target="their_modes:Kind", example="theirs()")


def faults(kind: type, monkeypatch: Any) -> set[str]:
    """Return the modes in which a class is neither right nor refused."""
    return {cell.mode for cell in check_modes(spec_of(kind, monkeypatch)) if cell.fault}


def test_a_stateless_processor_is_right_in_every_mode(monkeypatch: Any) -> None:
    """A processor without state is right in every mode, so no mode is impossible to satisfy."""
    found = check_modes(spec_of(Favours, monkeypatch))
    assert [cell.mode for cell in found] == AVAILABLE
    assert all(cell.right for cell in found), found


@pytest.mark.parametrize(
    ("kind", "caught"),
    [
        (ByPlace, {"greedy", "beams", "beam_sampling", "several_sequences", "assisted", "prompt_lookup", "reuse"}),
        (FromTheFirstCall, {"reuse", "left_padding"}),
        (CountsPadding, {"left_padding", "reuse", "bf16"}),
        (BreaksDown, set(AVAILABLE)),
    ],
)
def test_faulty_processors_are_caught(kind: type, caught: set[str], monkeypatch: Any) -> None:
    """A faulty processor is a fault in each mode in which it gives wrong scores."""
    assert caught <= faults(kind, monkeypatch)


def test_checking_modes_is_silent() -> None:
    """transformers remarks on assisted decoding and on missing kernels; none of it reaches the user."""
    remarks: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: remarks.append(record.getMessage())  # type: ignore[method-assign]
    logger = verbosity.get_logger("transformers.generation")
    type(logger).warning_once.cache_clear()  # type: ignore[attr-defined]
    verbosity.add_handler(handler)
    try:
        check_modes("top_k", ["assisted", "text_generation_pipeline", "recurrent_hybrid"])
    finally:
        verbosity.remove_handler(handler)
    assert remarks == [] and verbosity.get_verbosity() > logging.DEBUG


def test_a_refusal_is_no_fault(monkeypatch: Any) -> None:
    """A refusal is shown with its error; a fault raises an error instead of appearing on the page."""
    found = check_modes(spec_of(Refuses, monkeypatch))
    assert {cell.refused for cell in found} == {"ModeError: refuses: everything must be plain, got this; use another"}
    written = page({"theirs": found})
    assert "(1) ModeError: refuses" in written
    assert {mode for mode, mark in entries_of(written)["theirs"].items() if mark == "no (1)"} == set(AVAILABLE)
    with pytest.raises(PluginError, match=r"theirs: greedy must be right or refused .* got .*RuntimeError: down"):
        page({"theirs": check_modes(spec_of(BreaksDown, monkeypatch), ["greedy"])})


@pytest.mark.parametrize("fullgraph", [True, False])
def test_graphs_of_other_models_do_not_end_the_compiled_mode(fullgraph: bool) -> None:
    """torch counts the graphs of all models, and gives up on code with too many; the mode runs nevertheless."""
    torch._dynamo.reset()
    ids = {"input_ids": torch.tensor([[5, 6, 7]])}
    others = [
        GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=8, n_layer=1, n_head=1)),
        *(copy.deepcopy(tiny_model(number)) for number in range(2)),
    ]
    with torch._dynamo.config.patch(recompile_limit=1), torch.no_grad():
        for other in others[: 1 if fullgraph else None]:
            torch.compile(other, backend="eager", fullgraph=fullgraph)(**ids)
        (result,) = check_modes("top_k", ["static_compiled"])
    assert result.right, result.fault


def test_a_graph_of_the_main_model_does_not_hide_that_others_lack_one() -> None:
    """torch runs graphs of code that it gave up on, so the first model that must compile may be that of a stream."""
    torch._dynamo.reset()
    other = copy.deepcopy(tiny_model(2))
    assert check_modes("top_k", ["static_compiled"])[0].right
    with torch._dynamo.config.patch(recompile_limit=1), torch.no_grad():
        torch.compile(other, backend="eager")(input_ids=torch.tensor([[5, 6, 7]]))
    (result,) = check_modes("cascade", ["static_compiled"])
    assert result.right, result
