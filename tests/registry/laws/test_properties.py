"""The laws hold for every registered processor, and each law catches a processor that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor

import logitkit
from logitkit.errors import LogitkitError, UnknownNameError
from logitkit.registry.laws import LAWS, check_processor, parametrize_with_laws, subjects
from logitkit.registry.laws.context_properties import CONTEXT_LAWS
from logitkit.registry.laws.wide_properties import WIDE_LAWS


@parametrize_with_laws(logitkit.names())
def test_every_registered_processor_keeps_the_laws(check: Callable[[], None]) -> None:
    """Each law holds, or fails where the Spec declares it with a reason."""
    check()


class Honest(LogitsProcessor):
    """Keeps every law: raises the score of the token id after the last one."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.log_softmax(-1)
        return scores.scatter_add(1, (input_ids[:, -1:] + 1) % 250, torch.ones(len(scores), 1).to(scores))


class WritesInPlace(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores += 1.0
        return scores


class RemembersTheFirstLength(Honest):
    """Takes the length of its first rows as the length of the prompt."""

    start: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.start = input_ids.shape[1] if self.start is None else self.start
        return scores.index_fill(1, torch.tensor([input_ids.shape[1] - self.start]), 9.0)


class CountsRewinds(Honest):
    """Right while rows grow; wrong once a prefix is shorter than the longest one so far."""

    longest = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rewound, self.longest = input_ids.shape[1] < self.longest, max(self.longest, input_ids.shape[1])
        return scores.index_fill(1, torch.tensor([7]), 9.0) if rewound else scores


class LooksAtRowZero(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.index_fill(1, input_ids[0, -1:], 9.0)


class CountsLength(Honest):
    """Counts padding as text."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.index_fill(1, torch.tensor([input_ids.shape[1]]), 9.0)


class TrustsTheSign(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return torch.where(scores > 0, scores * 2, scores)


class Unmasks(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.clamp_min(-50.0)


class ForbidsAll(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return torch.full_like(scores, -torch.inf)


class HoldsALambda(Honest):
    def __init__(self) -> None:
        self.shift = lambda scores: scores


class ThreeArguments(Honest):
    def __call__(self, input_ids: Tensor, scores: Tensor, step: int = 0) -> Tensor:  # type: ignore[override]
        return scores


@dataclass
class EqualByValue(Honest):
    strength: float = 1.0


VILLAINS = {
    "leaves_its_input_alone": WritesInPlace,
    "forgets": RemembersTheFirstLength,
    "depends_only_on_the_prefix": CountsRewinds,
    "treats_rows_alike": LooksAtRowZero,
    "ignores_left_padding": CountsLength,
    "ignores_the_scale_of_a_row": TrustsTheSign,
    "keeps_masked_tokens_masked": Unmasks,
    "leaves_a_choice": ForbidsAll,
    "survives_pickling_or_says_why": HoldsALambda,
    "two_argument_call": ThreeArguments,
    "identity_equality": EqualByValue,
}


def test_an_honest_processor_keeps_every_law() -> None:
    """A processor without faults keeps every law, so no law is impossible to keep."""
    assert check_processor(Honest).failures == []


@pytest.mark.parametrize("law", VILLAINS)
def test_each_law_catches_its_faulty_processor(law: str) -> None:
    """The law that the processor is built to break fails, with a reason."""
    broken = {result.law: result.reason for result in check_processor(VILLAINS[law]).failures}
    assert broken.get(law), f"{law} let {VILLAINS[law].__name__} pass; caught: {sorted(broken)}"


IN_PLACE = sorted(set(VILLAINS) - {"two_argument_call", "identity_equality"})


@pytest.mark.parametrize("law", IN_PLACE)
def test_writing_to_the_scores_hides_no_fault(law: str) -> None:
    """A faulty processor that also writes to the given scores is still caught by the law of its fault."""

    class InPlace(VILLAINS[law]):  # type: ignore[misc]
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            return scores.copy_(super().__call__(input_ids, scores))

    assert law in {result.law for result in check_processor(InPlace).failures}


def test_the_neutral_law_catches_its_faulty_processor() -> None:
    """A processor that changes scores at its neutral value breaks the law, in place or not."""
    almost = subjects.Subject("almost", lambda padding: Honest(), neutral={"strength=0": Honest})
    with pytest.raises(AssertionError, match="strength=0"):
        LAWS["is_identity_when_neutral"](almost)
    in_place = subjects.Subject("in place", lambda padding: Honest(), neutral={"strength=0": WritesInPlace})
    with pytest.raises(AssertionError, match="strength=0"):
        LAWS["is_identity_when_neutral"](in_place)


def test_every_law_has_a_faulty_processor() -> None:
    """For each law, this folder has a processor that breaks the law."""
    wide = {law.__name__ for law in (*WIDE_LAWS, *CONTEXT_LAWS)}  # theirs are in modules of the same names
    assert {*VILLAINS, *wide, "is_identity_when_neutral"} == set(LAWS)


def test_a_declared_failure_is_expected() -> None:
    """A declared failure counts as expected, and a declared failure that does not occur as unexpected."""
    reason = {"ignores_the_scale_of_a_row": "it works on signs"}
    assert check_processor(TrustsTheSign, reason).failures == []
    (kept,) = check_processor(Honest, reason).failures
    assert kept.law == "ignores_the_scale_of_a_row" and kept.kept


def test_an_unknown_law_is_refused() -> None:
    """An unknown law raises an error, whether it is requested or declared."""
    with pytest.raises(UnknownNameError, match="no law named 'forget'; did you mean 'forgets'"):
        check_processor(Honest, {"forget": "it remembers"})
    with pytest.raises(UnknownNameError, match="no law named"):
        check_processor(Honest, laws=["all"])


def counting_factory(tokenizer: Any, inputs: Any, *, strength: float = 1.0) -> Any:
    """A factory that requires the tokenizer and the prompts of the laws."""
    assert tokenizer is subjects.tiny_tokenizer() and set(inputs) == {"input_ids", "attention_mask"}
    return CountsText(int(inputs["attention_mask"].shape[1]))


class CountsText(Honest):
    """Counts the new text from the given length of the prompt."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.index_add(
            1, torch.tensor([(input_ids.shape[1] - self.start) % 200]), torch.ones(len(scores), 1).to(scores)
        )


def test_a_factory_may_ask_for_the_prompts() -> None:
    """A processor that its factory tells the padding keeps the law of left padding."""
    assert check_processor(counting_factory).failures == []


MIN_NEW = "logitkit.processors.warpers:MinNewTokens"
SUBJECTS = {
    "cfg(scale=2.0)": "cfg",
    "transformers:TopKLogitsWarper(top_k=5)": "transformers:TopKLogitsWarper(top_k=5)",
    "transformers:TopKLogitsWarper(5)": "transformers:TopKLogitsWarper(5)",
    "logitkit.processors.contrast.processors:CFG": "logitkit.processors.contrast.processors:CFG",  # binds; neutral
    "logitkit.processors.warpers:MinNewTokens(count=3)": "logitkit.processors.warpers:MinNewTokens(count=3)",
}


@pytest.mark.parametrize("text", SUBJECTS)
def test_subjects_as_text(text: str) -> None:
    """A name with parameters and any class can be tested; declared neutral values are tested too."""
    report = check_processor(text)
    assert report.subject == SUBJECTS[text] and report.failures == []
    neutral = {result.law: result.reason for result in report.results}["is_identity_when_neutral"]
    assert bool(neutral) == text.startswith("transformers:")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("transformers:TopKLogitsWarper", r"top_k must be given, got None; write transformers:TopKLogitsWarper\(top_k"),
        ("transformers:TopKLogitsWarper(top=5)", "no parameter of transformers:TopKLogitsWarper named 'top'; did you"),
        (f"{MIN_NEW}()", rf"^check {MIN_NEW}: count must be given, got None; write {MIN_NEW}\(count=\.\.\.\)$"),
        (f"{MIN_NEW}(cuont=3)", "no parameter of min_new_tokens named 'cuont'; did you mean 'count'"),
        (f"{MIN_NEW}(count=-1)", "^min_new_tokens: count must be "),
        ("transformers:Nothing", "check: subject must be importable, got 'transformers:Nothing'; AttributeError"),
        ("math:pi", "must be a class of processors or a factory of one, got 'math:pi'"),
        ("collections:OrderedDict", "must be a class of processors"),
        ("cfg(scale=", "was never closed"),
        ("cfg(scal=1.0)", "no parameter of cfg named 'scal'; did you mean 'scale'"),
        ("cgf", "no processor named 'cgf'; did you mean 'cfg'"),
    ],
)
def test_text_that_is_no_subject(text: str, says: str) -> None:
    """A text that names no processor raises one named error before any law runs."""
    with pytest.raises(LogitkitError, match=says):
        check_processor(text)


def test_an_exception_is_a_failed_law() -> None:
    """An exception of the processor is a failed law and is not propagated."""

    class Raises(Honest):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            raise RuntimeError("out of order")

    assert any("RuntimeError: out of order" in result.reason for result in check_processor(Raises).failures)


def test_checks_refuse_what_is_no_processor() -> None:
    """A number is refused: a subject is a name, a Spec or a factory."""
    nothing: Any = 3
    with pytest.raises(logitkit.errors.ParameterError, match="a name, a Spec, or a factory"):
        check_processor(nothing)
