"""The laws: properties that every processor must have.

Each law is a function of a `Subject` and raises AssertionError where the property does not hold; its docstring is
the sentence that reports and the documentation show. Scores are passed as copies, so that a processor that writes to
them breaks ``leaves_its_input_alone`` and is still tested for every other property.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from typing import Any

import torch
from transformers import LogitsProcessorList

from logitkit.errors import LogitkitError
from logitkit.registry.laws.comparison import assert_choice, assert_masked, assert_same_distribution, assert_unchanged
from logitkit.registry.laws.context_properties import CONTEXT_LAWS
from logitkit.registry.laws.subjects import ROW_TOKENS, Subject
from logitkit.registry.laws.wide_properties import WIDE_LAWS

Law = Callable[[Subject], None]
LENGTHS = (3, 4, 7, 5, 5, 12, 0, 1)  # grown by one and by several, rewound, repeated


def leaves_its_input_alone(subject: Subject) -> None:
    """The processor does not write to input_ids or scores, in the first call or in a later one."""
    processor, rows = subject.make(), subject.rows()
    for ids, scores in ((rows[:, :-1].clone(), subject.scores(1)), (rows.clone(), subject.scores())):
        before = ids.clone(), scores.clone()
        processor(ids, scores)
        assert torch.equal(ids, before[0]), "the processor wrote to input_ids"
        assert_unchanged(scores, before[1], "the processor wrote to scores", before[0])


def forgets(subject: Subject) -> None:
    """A processor that was used before returns what a new one returns, also when the rows extend the earlier rows."""
    used, ids, scores = subject.make(), subject.rows(), subject.scores()
    used(ids[:, :-1], subject.scores(1))
    assert_same_distribution(used(ids, scores.clone()), subject.make()(ids, scores.clone()), "used against new", ids)


def depends_only_on_the_prefix(subject: Subject) -> None:
    """The result does not depend on the order of calls: rows may be permuted, rewound, repeated and interleaved."""
    used = subject.make()
    first, second = subject.rows(seed=0), subject.rows(seed=1)
    start = first.shape[1] - ROW_TOKENS
    for rows, length in itertools.product((first, second, first.flip(0)), LENGTHS):
        ids, scores = rows[:, : start + length], subject.scores(length)
        expected = subject.make()(ids, scores.clone())
        assert_same_distribution(used(ids, scores.clone()), expected, f"a prefix of {length} tokens, out of order", ids)


def treats_rows_alike(subject: Subject) -> None:
    """The result of a row does not depend on the other rows of the batch, on their order or on their number."""
    ids, scores = subject.rows(), subject.scores()
    batch = subject.make()(ids, scores.clone())
    for row in range(len(ids)):
        alone = subject.make()(ids[row : row + 1], scores[row : row + 1].clone())
        what = f"row {row} in a batch compared with the row alone"
        assert_same_distribution(batch[row : row + 1], alone, what, ids[row : row + 1])
    order = torch.tensor([1, 0, 0])
    assert_same_distribution(
        subject.make()(ids[order], scores[order]), batch[order], "permuted and repeated rows", ids[order]
    )


def ignores_left_padding(subject: Subject) -> None:
    """Padding on the left of a prompt does not change the result."""
    ids = subject.rows(padding=5)
    padded = subject.make(padding=5)(ids, subject.scores())
    plain = subject.make()(subject.rows(), subject.scores())
    assert_same_distribution(padded, plain, "with left padding compared with no padding", ids)


def ignores_the_scale_of_a_row(subject: Subject) -> None:
    """Logits, as in sampling, and their log-probabilities, as in beam search, give the same distribution."""
    ids, scores = subject.rows(), subject.scores()
    of_logp = subject.make()(ids, scores.log_softmax(-1))
    assert_same_distribution(of_logp, subject.make()(ids, scores), "log-probabilities against logits", ids)


def keeps_masked_tokens_masked(subject: Subject) -> None:
    """A token with score -inf keeps it, and no score becomes NaN or +inf."""
    scores = subject.scores()
    scores[:, ::3] = -torch.inf
    ids = subject.rows()
    assert_masked(scores, subject.make()(ids, scores.clone()), "", ids)


def leaves_a_choice(subject: Subject) -> None:
    """Every row keeps a possible token, even if it had only one; otherwise the processor raises a logitkit error."""
    single = torch.full_like(subject.scores(), -torch.inf)
    single[:, 17] = 1.5
    for scores in (single, subject.scores()):
        try:
            returned = subject.make()(subject.rows(), scores.clone())
        except LogitkitError:
            continue
        assert_choice(scores, returned, "a row has no possible token left", subject.rows())


def is_identity_when_neutral(subject: Subject) -> None:
    """At the neutral value of each parameter the scores are returned bit for bit."""
    for value, make in subject.neutral.items():
        ids, scores = subject.rows(), subject.scores()
        assert_unchanged(make()(ids, scores.clone()), scores, f"the scores changed at {value}", ids)


def survives_pickling_or_says_why(subject: Subject) -> None:
    """A pickled copy returns the same; a processor that cannot be pickled raises a logitkit error."""
    original, ids, scores = subject.make(), subject.rows(), subject.scores()
    try:
        copy = pickle.loads(pickle.dumps(original))  # noqa: S301 - of a value made on the line above
    except LogitkitError:
        return
    copied = copy(ids, scores.clone())
    assert_same_distribution(copied, original(ids, scores.clone()), "a pickled copy compared with the original", ids)


def two_argument_call(subject: Subject) -> None:
    """`generate` can call the processor with rows and scores alone; it fails on a third argument."""
    processor, scores = subject.make(), subject.scores()
    ids: Any = subject.rows()
    by_list = LogitsProcessorList([processor])(ids, scores.clone())  # checks the signature as `generate` does
    assert_same_distribution(by_list, subject.make()(ids, scores.clone()), "called as `generate` calls", ids)


def identity_equality(subject: Subject) -> None:
    """Two instances are unequal, because transformers drops the second of two equal processors."""
    one, other = subject.make(), subject.make()
    assert one == one, "an instance is unequal to itself"
    assert bool(one != other), "two instances are equal"


LAWS: dict[str, Law] = {
    law.__name__: law
    for law in (
        leaves_its_input_alone,
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
        *WIDE_LAWS,
        *CONTEXT_LAWS,
    )
}
