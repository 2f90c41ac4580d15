"""Run the laws on a processor, as a report or as pytest cases."""

from __future__ import annotations

import dataclasses
import functools
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logitkit.errors import UnknownNameError
from logitkit.registry.discovery import default_registry
from logitkit.registry.laws.causes import CAUSES
from logitkit.registry.laws.comparison import Evidence, LawViolatedError
from logitkit.registry.laws.process_settings import kept_settings
from logitkit.registry.laws.properties import LAWS, is_identity_when_neutral
from logitkit.registry.laws.search_laws import SEARCH_LAWS, SearchSubject
from logitkit.registry.laws.subjects import Subject, registry_of, subject_of
from logitkit.registry.spec import Spec


@dataclass(frozen=True, kw_only=True)
class LawResult:
    """The result of one law on one processor.

    Attributes:
        law: name of the law.
        kept: whether the law holds.
        reason: the first line of the failure, or why nothing was tested; empty otherwise.
        declared: the reason for which the Spec, or the caller, expects the law to fail; empty if it must hold.
        evidence: the row, the token and the two values that differ most; None where the failure has none.
        where: the evidence's prefix and token as text, or the file and line at which the processor raised an exception.
        cause: what usually causes a failure of this law; empty where the law holds.

    >>> LawResult(law="forgets", kept=False, declared="it keeps a counter").as_expected
    True
    """

    law: str
    kept: bool
    reason: str = ""
    declared: str = ""
    evidence: Evidence | None = None
    where: str = ""
    cause: str = ""

    def explain(self) -> list[str]:
        """Return a failure in lines: the reason, the place, the two values, and the usual cause.

        >>> result = judge("is_identity_when_neutral", subject_of("cfg"))
        >>> result.kept, result.explain()
        (True, [])
        """
        values = str(self.evidence) if self.evidence else ""
        usual = f"usual cause: {self.cause}" if self.cause else ""
        return [line for line in (self.reason, self.where, values, usual) if line]

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
        given: what the processor was made with: the call with every parameter, and the kinds of its resources.

    >>> broken = LawResult(law="forgets", kept=False, reason="used against new: other tokens are impossible")
    >>> [result.law for result in Report(subject="mine", results=[broken]).failures]
    ['forgets']
    """

    subject: str
    results: Sequence[LawResult] = ()
    given: str = ""

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
    >>> result = judge("treats_rows_alike", subject_of("cfg"))
    >>> result.kept, result.reason, result.evidence
    (True, '', None)
    """
    expected = {**subject.declared, **(declared or {})}.get(law, "")
    if law == is_identity_when_neutral.__name__ and not subject.neutral:
        return LawResult(law=law, kept=True, reason="not tested: no neutral value is declared")
    try:
        with kept_settings():
            LAWS[law](subject)
    except Exception as error:
        return _failure(law, subject, error, expected)
    return LawResult(law=law, kept=True, declared=expected)


def _failure(law: str, subject: Subject, error: Exception, declared: str) -> LawResult:
    """Return the result of a law that raised an error."""
    first = str(error).strip().split("\n")[0] or "an assertion without a message"
    own = isinstance(error, AssertionError)
    evidence = error.evidence if isinstance(error, LawViolatedError) else None
    where = subject.place_of(evidence.prefix, evidence.token, evidence.row) if evidence else _place(error)
    return LawResult(
        law=law,
        kept=False,
        reason=first if own else f"{type(error).__name__}: {first}",
        declared=declared,
        evidence=evidence,
        where=where,
        cause=CAUSES[law] if own or not where else "",  # an exception of the processor has a place of its own
    )


def _place(error: Exception) -> str:
    """Return file, line and code of the last frame outside the laws, torch and transformers, or ""."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library(Path(frame.filename))]
    return f"raised in {own[-1].filename}, line {own[-1].lineno}: {own[-1].line}" if own else ""


def _is_library(path: Path) -> bool:
    """Return whether a file belongs to the laws, or to torch or transformers."""
    return path.parent == Path(__file__).parent or bool({"torch", "transformers"} & set(path.parts))


def check_processor(
    subject: Spec | str | Callable[..., Any],
    expected_failures: Mapping[str, str] | None = None,
    *,
    laws: Iterable[str] | None = None,
) -> Report:
    """Test the laws on a processor; on a search or a selector, the laws of searches.

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
    search = _search_of(subject)
    if search is not None:
        return _check_search(search, list(SEARCH_LAWS if laws is None else laws), expected_failures or {})
    tested = subject_of(subject)
    chosen = list(LAWS if laws is None else laws)
    for law in (*chosen, *(expected_failures or ()), *tested.declared):
        if law not in LAWS:
            raise UnknownNameError("law", law, LAWS)
    results = [judge(law, tested, expected_failures) for law in chosen]
    return Report(subject=tested.name, results=results, given=tested.given)


def _search_of(subject: Spec | str | Callable[..., Any]) -> SearchSubject | None:
    """Return a search or a selector under test; None for a processor."""
    if isinstance(subject, Spec):
        return None if subject.kind == "processor" else SearchSubject(subject, registry_of(subject))
    if not isinstance(subject, str) or ":" in subject.partition("(")[0]:
        return None
    spec = default_registry().describe(subject.partition("(")[0].strip())
    if spec.kind == "processor":
        return None
    return SearchSubject(dataclasses.replace(spec, example=subject) if "(" in subject else spec)


def _check_search(search: SearchSubject, laws: Sequence[str], declared: Mapping[str, str]) -> Report:
    """Test the laws of searches on a search or a selector; see `check_processor`."""
    results = []
    expected = {**search.spec.laws, **declared}
    for law in (*laws, *expected):
        if law not in SEARCH_LAWS:
            raise UnknownNameError("law of searches", law, SEARCH_LAWS)
    for law in laws:
        reason = ""
        try:
            with kept_settings():
                SEARCH_LAWS[law](search)
        except Exception as error:
            first = str(error).strip().split("\n")[0]
            reason = first if isinstance(error, AssertionError) else f"{type(error).__name__}: {first}"
        results.append(LawResult(law=law, kept=not reason, reason=reason, declared=expected.get(law, "")))
    return Report(subject=search.name, results=results, given=str(search.example.chain))


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
    said = "\n".join(result.explain()) or f"the law holds, though its failure is declared: {result.declared}"
    assert result.as_expected, f"{subject.name} {law}: {said}"
