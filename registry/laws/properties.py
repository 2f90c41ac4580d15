"""The laws: what every processor must keep, whoever wrote it.

Each law is a plain function over a `Subject`; its sentence is its docstring; it raises AssertionError.
Scores are handed over as copies: one that writes to them breaks a law of its own, and hides no other fault.
``check_processor("uscd")`` runs them all; `parametrize_with_laws` makes a pytest of them.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import LogitkitError, UnknownNameError
from logitkit.registry.laws.subjects import Subject, subject_of
from logitkit.registry.spec import Spec

Law = Callable[[Subject], None]
CLOSE = 1e-4  # a cache and a fresh reading differ in the last bits of fp32


def same(got: Tensor, want: Tensor, what: str) -> None:
    """Assert that two rows of scores mean the same distribution, impossible tokens included."""
    got, want = got.float().log_softmax(-1), want.float().log_softmax(-1)
    assert torch.equal(got == -torch.inf, want == -torch.inf), f"{what}: other tokens are impossible"
    torch.testing.assert_close(got, want, rtol=CLOSE, atol=CLOSE, msg=lambda text: f"{what}: {text}")


def leaves_its_input_alone(subject: Subject) -> None:
    """The given ids and scores are not written to, at the first call and at the next."""
    processor, rows = subject.make(), subject.rows()
    for ids, scores in ((rows[:, :-1].clone(), subject.scores(1)), (rows.clone(), subject.scores())):
        before = ids.clone(), scores.clone()
        processor(ids, scores)
        assert torch.equal(ids, before[0]), "it wrote to input_ids"
        assert torch.equal(scores, before[1]), "it wrote to scores"


def keeps_shape_dtype_device(subject: Subject) -> None:
    """Scores come back with the shape, dtype and device they had."""
    scores = subject.scores()
    got = subject.make()(subject.rows(), scores)
    assert isinstance(got, Tensor), f"it returned {type(got).__name__}, not scores"
    found = got.shape, got.dtype, got.device
    assert found == (scores.shape, scores.dtype, scores.device), f"scores came back as {found}"


def forgets(subject: Subject) -> None:
    """A used instance answers like a fresh one, even when a prompt extends the last one."""
    used, ids, scores = subject.make(), subject.rows(), subject.scores()
    used(ids[:, :-1], subject.scores(1))
    same(used(ids, scores.clone()), subject.make()(ids, scores.clone()), "used against fresh")


def depends_only_on_the_prefix(subject: Subject) -> None:
    """Shuffled, rewound, repeated and interleaved prefixes are answered as if each were the first."""
    used = subject.make()
    first, second = subject.rows(seed=0), subject.rows(seed=1)
    start = first.shape[1] - 12
    for rows, length in itertools.product((first, second, first.flip(0)), (3, 4, 7, 5, 5, 12, 0, 1)):
        ids, scores = rows[:, : start + length], subject.scores(length)
        same(
            used(ids, scores.clone()), subject.make()(ids, scores.clone()), f"a prefix of {length} tokens, out of order"
        )


def treats_rows_alike(subject: Subject) -> None:
    """A batch is the stack of its rows alone, in any order and any number."""
    ids, scores = subject.rows(), subject.scores()
    whole = subject.make()(ids, scores.clone())
    for row in range(len(ids)):
        alone = subject.make()(ids[row : row + 1], scores[row : row + 1].clone())
        same(whole[row : row + 1], alone, f"row {row} in a batch against alone")
    order = torch.tensor([1, 0, 0])
    same(subject.make()(ids[order], scores[order]), whole[order], "permuted and repeated rows")


def ignores_left_padding(subject: Subject) -> None:
    """Padding on the left of a prompt changes nothing."""
    padded = subject.make(padding=5)(subject.rows(padding=5), subject.scores())
    same(padded, subject.make()(subject.rows(), subject.scores()), "with left padding against without")


def ignores_the_scale_of_a_row(subject: Subject) -> None:
    """Logits and their log-probabilities (sampling gives the one, beam search the other) mean the same."""
    ids, scores = subject.rows(), subject.scores()
    same(subject.make()(ids, scores.log_softmax(-1)), subject.make()(ids, scores), "log-probabilities against logits")


def keeps_masked_tokens_masked(subject: Subject) -> None:
    """A token that is impossible before is impossible after, and nothing becomes NaN or +inf."""
    scores = subject.scores()
    scores[:, ::3] = -torch.inf
    got = subject.make()(subject.rows(), scores.clone())
    assert not torch.isnan(got).any() and not torch.isposinf(got).any(), "scores became NaN or +inf"
    assert bool((got[scores == -torch.inf] == -torch.inf).all()), "an impossible token became possible"


def leaves_a_choice(subject: Subject) -> None:
    """Every row keeps a possible token, even when it comes with one alone, or says by name why not."""
    scores = torch.full_like(subject.scores(), -torch.inf)
    scores[:, 17] = 1.5
    for given in (scores, subject.scores()):
        try:
            got = subject.make()(subject.rows(), given)
        except LogitkitError:
            continue
        assert bool(torch.isfinite(got).any(-1).all()), "a row was left without a possible token"


def is_identity_when_neutral(subject: Subject) -> None:
    """At each parameter's neutral value the scores come back bit for bit."""
    for value, make in subject.neutral.items():
        scores = subject.scores()
        assert torch.equal(make()(subject.rows(), scores.clone()), scores), f"it changed scores at {value}"


def survives_pickling_or_says_why(subject: Subject) -> None:
    """A pickled copy answers the same; what cannot be pickled says so by a named error."""
    original, ids, scores = subject.make(), subject.rows(), subject.scores()
    try:
        copy = pickle.loads(pickle.dumps(original))  # noqa: S301 - of a value made on the line above
    except LogitkitError:
        return
    same(copy(ids, scores.clone()), original(ids, scores.clone()), "a pickled copy against the original")


def two_argument_call(subject: Subject) -> None:
    """It is called with input_ids and scores and nothing else, since transformers raises on a third."""
    names = list(inspect.signature(subject.make().__call__).parameters)
    assert names == ["input_ids", "scores"], f"__call__ takes {names}"


def identity_equality(subject: Subject) -> None:
    """Two instances are unequal, since transformers drops the second of two equal processors."""
    one, other = subject.make(), subject.make()
    assert one == one, "an instance is unequal to itself"
    assert bool(one != other), "two instances are equal"


LAWS: dict[str, Law] = {
    law.__name__: law
    for law in (
        leaves_its_input_alone,
        keeps_shape_dtype_device,
        forgets,
        depends_only_on_the_prefix,
        treats_rows_alike,
        ignores_left_padding,
        ignores_the_scale_of_a_row,
        keeps_masked_tokens_masked,
        leaves_a_choice,
        is_identity_when_neutral,
        survives_pickling_or_says_why,
        two_argument_call,
        identity_equality,
    )
}


@dataclass(frozen=True, kw_only=True)
class LawResult:
    """One law on one subject: kept or not, why, and the reason if it was declared that it cannot be kept."""

    law: str
    kept: bool
    why: str = ""
    declared: str = ""

    @property
    def as_expected(self) -> bool:
        """Kept, or declared and indeed not kept."""
        return self.kept != bool(self.declared)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All laws on one subject."""

    subject: str
    verdicts: list[LawResult] = field(default_factory=list)

    @property
    def failures(self) -> list[LawResult]:
        """Laws that were broken, and declared failures that turned out to be kept."""
        return [verdict for verdict in self.verdicts if not verdict.as_expected]


def judge(law: str, subject: Subject, declared: Mapping[str, str] | None = None) -> LawResult:
    """Run one law; whatever it raises is the reason."""
    reasons = {**subject.declared, **(declared or {})}
    if law == is_identity_when_neutral.__name__ and not subject.neutral:
        return LawResult(law=law, kept=True, why="nothing to try: no neutral value is declared")
    try:
        LAWS[law](subject)
    except Exception as error:
        first = str(error).strip().split("\n")[0] or "an assertion without a message"
        why = first if isinstance(error, AssertionError) else f"{type(error).__name__}: {first}"
        return LawResult(law=law, kept=False, why=why, declared=reasons.get(law, ""))
    return LawResult(law=law, kept=True, declared=reasons.get(law, ""))


def check_processor(
    subject: Spec | str | Callable[[], Any],
    expected_failures: Mapping[str, str] | None = None,
    *,
    laws: Iterable[str] | None = None,
) -> Report:
    """Run the laws on a processor.

    Args:
        subject: a registered name, a Spec, ``module:Class``, or a class or factory; see `subject_of`.
        expected_failures: ``{law: reason}`` it cannot keep; one that it keeps all the same is a failure too.
        laws: which laws; all by default.

    Returns:
        A Report; ``.failures`` is empty when everything is as expected.

    Raises:
        UnknownNameError: a law that there is not, asked for or declared.
    """
    made = subject_of(subject)
    chosen = list(LAWS if laws is None else laws)
    for law in (*chosen, *(expected_failures or ()), *made.declared):
        if law not in LAWS:
            raise UnknownNameError("law", law, LAWS)
    return Report(subject=made.name, verdicts=[judge(law, made, expected_failures) for law in chosen])


def keep(law: str, subject: Subject) -> None:
    """Assert one law, or that it fails where that is declared."""
    verdict = judge(law, subject)
    assert verdict.as_expected, f"{subject.name} {law}: {verdict.why or f'kept, though declared: {verdict.declared}'}"


def parametrize_with_laws(subjects: Sequence[Spec | str | Callable[[], Any]]) -> Any:
    """Decorate ``def test_laws(check): check()``: it runs for every subject and every law."""
    import pytest

    made = [subject_of(thing) for thing in subjects]
    cases = [
        pytest.param(functools.partial(keep, law, subject), id=f"{subject.name}-{law}")
        for subject in made
        for law in LAWS
    ]
    return pytest.mark.parametrize("check", cases)
