"""Laws of searches and selectors: what every loop above the steps of a chain must keep, as plain functions.

Each law takes a `SearchSubject`, the example of a Spec on the tiny models, and raises an `AssertionError` where it is
broken. `logitkit.registry.laws.check_processor` runs them for a Spec that is no processor.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from logitkit.errors import ModeError
from logitkit.processors.model_facts import end_tokens
from logitkit.registry.call import Call
from logitkit.registry.laws.examples import Example, example_of
from logitkit.registry.registry import Registry
from logitkit.registry.spec import Spec

TEXTS, NEW = ("a prompt", "two"), 6


class SearchSubject:
    """A search or a selector with the parameters of its example, bound to tiny models.

    Args:
        spec: of the search or the selector.
        registry: where its name is looked up; None: everything installed.

    Example:
        >>> import logitkit
        >>> subject = SearchSubject(logitkit.describe("smc"))
        >>> subject.ids(TEXTS).shape[0]
        2
    """

    def __init__(self, spec: Spec, registry: Registry | None = None) -> None:
        self.spec, self.name = spec, spec.name
        self.example: Example = example_of(spec, registry)

    @property
    def model(self) -> Any:
        """The generating model."""
        return self.example.model

    def bound(self, texts: Sequence[str]) -> Call:
        """Return a new call for these prompts."""
        return self.example.bind(list(texts))

    def ids(self, texts: Sequence[str], *, seed: int = 0, call: Call | None = None, **settings: Any) -> Tensor:
        """Return what `Call.generate` returns for these prompts under a seed, ``[rows, length]``."""
        torch.manual_seed(seed)
        call = call or self.bound(texts)
        return call.ids(call.generate(**{"max_new_tokens": NEW, **settings}))


def begins_with_the_prompts(subject: SearchSubject) -> None:
    """Every row begins with its prompt, and has at most ``max_new_tokens`` new tokens."""
    call = subject.bound(TEXTS)
    ids = subject.ids(TEXTS, call=call)
    width = call.prompts.width
    assert torch.equal(ids[:, :width], call.prompts.ids), "rows begin with other tokens than the prompts"
    assert width < ids.shape[1] <= width + NEW, (
        f"rows have {ids.shape[1] - width} new tokens, at most {NEW} are allowed"
    )
    one = subject.ids(TEXTS, max_new_tokens=1)
    assert one.shape[1] == width + 1, f"max_new_tokens=1 gives {one.shape[1] - width} new tokens"


def is_reproducible(subject: SearchSubject) -> None:
    """The same seed gives the same rows, in a new call and in a used one."""
    call = subject.bound(TEXTS)
    first = subject.ids(TEXTS, call=call, seed=3)
    subject.ids(TEXTS, call=call, seed=4)
    for other in (subject.ids(TEXTS, call=call, seed=3), subject.ids(TEXTS, seed=3)):
        assert torch.equal(first, other), "the same seed gives other rows"


def keeps_prompts_apart(subject: SearchSubject) -> None:
    """The rows of a prompt do not depend on the other prompts of the batch."""
    both, other = (_new(subject, [TEXTS[0], text]) for text in (TEXTS[1], "another text"))
    alone = _new(subject, TEXTS[:1])
    assert both[0] == other[0], "another second prompt changes the row of the first prompt"
    assert both[0] == alone[0], "a second prompt changes the row of the first prompt"


def ends_at_end_tokens(subject: SearchSubject) -> None:
    """Nothing but padding follows an end token, and rows end as soon as all of them have ended."""
    call = subject.bound(TEXTS)
    ends = sorted({int(token) for token in subject.ids(TEXTS, call=call)[:, call.prompts.width :].flatten()})
    ids = subject.ids(TEXTS, eos_token_id=ends, pad_token_id=0)
    tails = ids[:, call.prompts.width :].tolist()
    for tail in tails:
        end = next((place for place, token in enumerate(tail) if token in ends), len(tail))
        assert not any(tail[end + 1 :]), f"tokens follow an end token: {tail}"


def stops_at_stop_strings(subject: SearchSubject) -> None:
    """A row that contains a stop string ends there."""
    call = subject.bound(TEXTS)
    tokens = subject.ids(TEXTS, call=call)[:, call.prompts.width :]
    texts = [subject.example.tokenizer.decode([token], skip_special_tokens=True) for token in tokens.flatten().tolist()]
    stops = sorted({text for text in texts if text.isprintable() and text.strip("\ufffd ")})
    if not stops:
        return
    stopped = subject.bound(TEXTS)
    ids = subject.ids(TEXTS, call=stopped, stop_strings=stops, eos_token_id=None)
    for text in stopped.texts(ids):
        first = min((text.find(stop) for stop in stops if stop in text), default=len(text))
        assert len(text) <= first + max(map(len, stops)), f"text follows a stop string: {text!r}"


def returns_the_sequences_asked_for(subject: SearchSubject) -> None:
    """``num_return_sequences`` rows of each prompt come back next to each other, with weights that sum to 1.

    A search that finds fewer, or that draws nothing and would find equal ones, refuses the number by name.
    """
    call, settings = subject.bound(TEXTS), dict[str, Any]()
    assert call.search is not None
    search = call.search.search
    if search.sequences(2) < 2 or (search.alike and not search.samples):
        try:
            subject.ids(TEXTS, call=call, num_return_sequences=2)
        except ModeError as error:
            assert subject.name in str(error), f"the error does not name the search: {error}"
        else:
            raise AssertionError("a search that finds one sequence returned two")
        if search.sequences(2) < 2:
            return
        settings["do_sample"] = True
    ids = subject.ids(TEXTS, call=call, num_return_sequences=2, **settings)
    assert len(ids) == 4, f"2 sequences of 2 prompts are {len(ids)} rows"
    assert torch.equal(ids[:, : call.prompts.width], call.prompts.ids.repeat_interleave(2, dim=0)), "prompts are mixed"
    assert call.search.log_weights is not None
    total = call.search.log_weights.exp().sum(-1)
    assert call.search.log_weights.shape == (2, 2), f"weights have the shape {[*call.search.log_weights.shape]}"
    torch.testing.assert_close(total, torch.ones_like(total))


def works_in_a_bare_generate(subject: SearchSubject) -> None:
    """``model.generate(custom_generate=call.search)`` gives the rows of ``call.generate``."""
    want = subject.ids(TEXTS, seed=5)
    call = subject.bound(TEXTS)
    torch.manual_seed(5)
    settings: dict[str, Any] = {"custom_generate": call.search, **call.generate_kwargs, "max_new_tokens": NEW}
    got = subject.model.generate(**call.inputs, logits_processor=call.processors, **settings)
    assert torch.equal(got, want), "a bare generate gives other rows"
    call.texts(got)


def leaves_the_model_as_found(subject: SearchSubject) -> None:
    """Weights, settings and hooks of the model stay as they were, also after an exception inside the search."""
    with torch.no_grad():  # transformers installs hooks of its own at the first captured output, and keeps them
        subject.model(torch.tensor([[0]]), output_hidden_states=True, output_attentions=True)
    before = _state_of(subject.model)
    subject.ids(TEXTS)
    assert _state_of(subject.model) == before, "the search changed the model"
    try:
        subject.ids(TEXTS, logits_processor=LogitsProcessorList([_Raising()]))
    except RuntimeError as error:
        assert "deliberate" in str(error), f"another error: {error}"
    else:
        raise AssertionError("an error inside the law did not reach the caller")
    assert _state_of(subject.model) == before, "the search changed the model when an exception ended it"


def reports_its_cost(subject: SearchSubject) -> None:
    """The trace counts forwards, tokens, rows and the memory of KV caches."""
    call = subject.bound(TEXTS)
    counted = _count_forwards(subject.model, lambda: subject.ids(TEXTS, call=call))
    report = call.trace.plain().search
    assert report is not None, "the trace holds no report"
    assert report.forwards == counted, f"{counted} forwards ran, the report counts {report.forwards}"
    assert report.tokens >= report.forwards and report.peak_rows > 0, f"the report is {report}"
    assert report.peak_cache_bytes > 0, "the report says that no KV cache held anything"


SEARCH_LAWS: dict[str, Callable[[SearchSubject], None]] = {
    law.__name__: law
    for law in (
        begins_with_the_prompts,
        is_reproducible,
        keeps_prompts_apart,
        ends_at_end_tokens,
        stops_at_stop_strings,
        returns_the_sequences_asked_for,
        works_in_a_bare_generate,
        leaves_the_model_as_found,
        reports_its_cost,
    )
}


class _Raising(LogitsProcessor):
    """Raises an error at the third step."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.steps += 1
        if self.steps > 2:
            raise RuntimeError("deliberate")
        return scores


def _new(subject: SearchSubject, texts: Sequence[str]) -> list[list[int]]:
    """Return the new tokens of each row."""
    call = subject.bound(texts)
    ids = subject.ids(texts, call=call)
    return [call.settings.without_padding(row) for row in ids[:, call.prompts.width :].tolist()]


def _state_of(model: Any) -> dict[str, Any]:
    """Return what a search might change on a model, as values that can be compared."""
    modules = list(model.modules())
    return {
        "names": sorted(vars(model)),
        "training": [module.training for module in modules],
        "hooks": sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules),
        "config": copy.deepcopy(model.config.to_dict()),
        "generation_config": copy.deepcopy(model.generation_config.to_dict()),
        "weights": [parameter._version for parameter in model.parameters()],
        "ends": end_tokens(model),
    }


def _count_forwards(model: Any, run: Callable[[], Any]) -> int:
    """Return how many forwards of a model a function runs."""
    count = 0

    def add(*_: Any) -> None:
        nonlocal count
        count += 1

    handle = model.register_forward_hook(add)
    try:
        run()
    finally:
        handle.remove()
    return count
