"""Run the laws on a processor, as a report or as pytest cases."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logitkit.errors import UnknownNameError
from logitkit.registry.laws.process_settings import kept_settings
from logitkit.registry.laws.properties import LAWS, is_identity_when_neutral
from logitkit.registry.laws.subjects import Subject, subject_of
from logitkit.registry.spec import Spec


@dataclass(frozen=True, kw_only=True)
class LawResult:
    """The result of one law on one processor.

    Attributes:
        law: name of the law.
        kept: whether the law holds.
        reason: the first line of the failure, or why nothing was tested; empty otherwise.
        declared: the reason for which the Spec, or the caller, expects the law to fail; empty if it must hold.

    >>> LawResult(law="forgets", kept=False, declared="it keeps a counter").as_expected
    True
    """

    law: str
    kept: bool
    reason: str = ""
    declared: str = ""

    @property
    def as_expected(self) -> bool:
        """Whether the law holds, or fails as declared. A declared failure that does not occur is unexpected."""
        return self.kept != bool(self.declared)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The results of all laws on one processor.

    Attributes:
        subject: name of the processor.
        results: one for each law.

    >>> broken = LawResult(law="forgets", kept=False, reason="used against new: other tokens are impossible")
    >>> [result.law for result in Report(subject="mine", results=[broken]).failures]
    ['forgets']
    """

    subject: str
    results: Sequence[LawResult] = ()

    @property
    def failures(self) -> list[LawResult]:
        """Results that are not as expected: broken laws, and declared failures that did not occur."""
        return [result for result in self.results if not result.as_expected]


def judge(law: str, subject: Subject, declared: Mapping[str, str] | None = None) -> LawResult:
    """Test one law on one processor.

    Args:
        law: a name in `LAWS`.
        subject: the processor under test.
        declared: ``{law: reason}`` of expected failures, in addition to those of the subject.

    Returns:
        The result. An exception of the processor counts as a failure and is not propagated.

    >>> from logitkit.registry.laws.subjects import subject_of
    >>> judge("treats_rows_alike", subject_of("cfg"))
    LawResult(law='treats_rows_alike', kept=True, reason='', declared='')
    """
    expected = {**subject.declared, **(declared or {})}.get(law, "")
    if law == is_identity_when_neutral.__name__ and not subject.neutral:
        return LawResult(law=law, kept=True, reason="not tested: no neutral value is declared")
    try:
        with kept_settings():
            LAWS[law](subject)
    except Exception as error:
        first = str(error).strip().split("\n")[0] or "an assertion without a message"
        reason = first if isinstance(error, AssertionError) else f"{type(error).__name__}: {first}"
        return LawResult(law=law, kept=False, reason=reason, declared=expected)
    return LawResult(law=law, kept=True, declared=expected)


def check_processor(
    subject: Spec | str | Callable[..., Any],
    expected_failures: Mapping[str, str] | None = None,
    *,
    laws: Iterable[str] | None = None,
) -> Report:
    """Test the laws on a processor.

    Args:
        subject: a registered name, a Spec, ``module:Class``, or a class or factory. Text may carry parameters:
            ``"transformers:TopKLogitsWarper(top_k=5)"``. A factory may require ``model``, ``tokenizer`` and ``inputs``.
        expected_failures: ``{law: reason}`` that the processor cannot keep. A law listed here must fail.
        laws: names of the laws to test; all by default.

    Returns:
        A Report; its ``failures`` are empty when every result is as expected.

    Raises:
        UnknownNameError: an unknown law.
        ParameterError, PluginError: the subject cannot be built.

    >>> check_processor("top_p(0.9)", laws=["leaves_a_choice", "two_argument_call"]).failures
    []
    """
    tested = subject_of(subject)
    chosen = list(LAWS if laws is None else laws)
    for law in (*chosen, *(expected_failures or ()), *tested.declared):
        if law not in LAWS:
            raise UnknownNameError("law", law, LAWS)
    return Report(subject=tested.name, results=[judge(law, tested, expected_failures) for law in chosen])


def parametrize_with_laws(subjects: Sequence[Spec | str | Callable[..., Any]]) -> Any:
    """Return a pytest decorator that runs a test for every processor and every law.

    Args:
        subjects: processors, each as in `check_processor`.

    The decorated test takes ``check`` and calls it; the call fails where a result is not as expected.

    >>> @parametrize_with_laws(["cfg", "top_p"])
    ... def test_laws(check):
    ...     check()
    """
    import pytest

    tested = [subject_of(subject) for subject in subjects]
    cases = [
        pytest.param(functools.partial(_assert_law, law, subject), id=f"{subject.name}-{law}")
        for subject in tested
        for law in LAWS
    ]
    return pytest.mark.parametrize("check", cases)


def _assert_law(law: str, subject: Subject) -> None:
    """Assert that the result of a law is as expected."""
    result = judge(law, subject)
    expected = result.reason or f"the law holds, though its failure is declared: {result.declared}"
    assert result.as_expected, f"{subject.name} {law}: {expected}"
