"""The laws about scores, rows and batches beyond the ordinary: other dtypes, long rows, large batches, sparse masks."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from logitkit.errors import LogitkitError, ModelError
from logitkit.registry.laws.comparison import (
    TOLERANCE,
    assert_close_probabilities,
    assert_masked,
    assert_same_distribution,
    assert_unchanged,
)
from logitkit.registry.laws.subjects import Subject

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LONG = (41, 100, 150, 250, 480, 600)  # continuation tokens
CONTEXT = 512  # tokens of the tiny models; a processor may refuse rows that are longer
BATCH = 17
SIZES = (1, 9, 2, 8, 3, 7, 4, 6, 5, 12, 16)  # of batches that one processor is asked for in turn
SAMPLED_ROWS = (0, 2, 3, 8, 16)  # rows of the batch that are compared with the row alone
HALF_TOLERANCE = 0.05  # difference of probabilities between scores of half precision and the same scores in fp32


def keeps_shape_dtype_device(subject: Subject) -> None:
    """The returned scores have the shape, dtype and device of the given scores, in fp32, bf16, fp16 and fp64."""
    for dtype in DTYPES:
        scores = subject.scores().to(dtype)
        returned = subject.make()(subject.rows(), scores.clone())
        assert isinstance(returned, Tensor), f"the processor returned {type(returned).__name__}, not a tensor"
        properties = returned.shape, returned.dtype, returned.device
        assert properties == (scores.shape, dtype, scores.device), f"for {dtype} the returned scores are {properties}"


def agrees_across_dtypes(subject: Subject) -> None:
    """Scores in bf16, fp16 or fp64 give the result of the same scores in fp32, up to the rounding of the dtype."""
    rows = subject.rows()
    for dtype in DTYPES[1:]:
        scores = subject.scores().to(dtype)
        expected = subject.make()(rows, scores.float())
        actual = subject.make()(rows, scores.clone())
        allowed = TOLERANCE if dtype == torch.float64 else HALF_TOLERANCE
        assert_close_probabilities(actual, expected, allowed, f"{dtype} and fp32", rows)
        assert_masked(scores, actual, f"scores in {dtype}", rows)


def holds_for_long_rows(subject: Subject) -> None:
    """Rows of 41 to 600 new tokens keep the laws too: rows are independent, nothing is remembered or unmasked."""
    used = subject.make()
    for length in LONG:
        try:
            _assert_long_rows(subject, used, length)
        except ModelError:
            if length < CONTEXT:
                raise


def _assert_long_rows(subject: Subject, used: Any, length: int) -> None:
    """Assert the laws for rows of one length; ``used`` has seen shorter ones."""
    ids, scores = subject.rows(length), subject.scores(length)
    scores[:, length % 7 :: 7] = -torch.inf
    before = ids.clone(), scores.clone()
    batch = subject.make()(ids, scores.clone())
    what = f"with {length} new tokens"
    assert_masked(scores, batch, what, ids)
    assert_same_distribution(used(ids, scores.clone()), batch, f"{what}, used against new", ids)
    assert_same_distribution(subject.make()(ids[1:], scores[1:].clone()), batch[1:], f"{what}, a row alone", ids[1:])
    assert torch.equal(ids, before[0]), f"{what}, the processor wrote to input_ids"


def holds_in_large_batches(subject: Subject) -> None:
    """Rows of batches of 1 to 17 are independent, also rows that share a prompt and differ in their continuation."""
    ids, scores = subject.batch(BATCH), subject.scores(rows=BATCH)
    batch = subject.make()(ids, scores.clone())
    for row in SAMPLED_ROWS:
        alone = subject.make()(ids[row : row + 1], scores[row : row + 1].clone())
        what = f"row {row} of {BATCH} compared with the row alone"
        assert_same_distribution(batch[row : row + 1], alone, what, ids[row : row + 1])
    used = subject.make()
    for size in SIZES:
        fewer = used(ids[:size], scores[:size].clone())
        assert_same_distribution(fewer, batch[:size], f"a batch of {size} compared with a batch of {BATCH}", ids)


def keeps_sparse_masks(subject: Subject) -> None:
    """Impossible tokens stay impossible where 1 to 40 tokens are possible, the end token alone, or all but it."""
    ids, scores = subject.batch(BATCH), subject.scores(rows=BATCH)
    end = subject.end_token
    generator = torch.Generator().manual_seed(3)
    for row in range(BATCH):
        possible = torch.randperm(256, generator=generator)[: 1 + row * row // 6]
        allowed = torch.zeros_like(scores[row], dtype=torch.bool).index_fill(0, possible, True)
        scores[row].masked_fill_(~allowed, -torch.inf)
    scores[BATCH - 2] = torch.full_like(scores[0], -torch.inf).index_fill(0, torch.tensor([end]), 0.5)
    scores[BATCH - 1] = subject.scores(seed=5)[0].index_fill(0, torch.tensor([end]), -torch.inf)
    for rows in (ids, torch.cat([ids, ids[:, -1:]], dim=1)):
        _assert_masked_or_refused(subject, rows, scores, "with a sparse mask")


def _assert_masked_or_refused(subject: Subject, ids: Tensor, scores: Tensor, what: str) -> None:
    """Assert `assert_masked` for a batch, or row by row where an error of logitkit refuses the batch."""
    try:
        assert_masked(scores, subject.make()(ids, scores.clone()), what, ids)
    except LogitkitError:
        for row in range(len(ids)):
            one = scores[row : row + 1]
            try:
                returned = subject.make()(ids[row : row + 1], one.clone())
            except LogitkitError:
                continue
            assert_masked(one, returned, f"{what}, row {row}", ids[row : row + 1])


def survives_extreme_scores(subject: Subject) -> None:
    """Extreme but finite scores, equal scores and the least finite score give no NaN, no +inf and no empty row."""
    plain = subject.scores()
    least = torch.finfo(plain.dtype).min
    cases = {
        "scores of 1e4": 1e4 * plain,
        "scores of 1e30": 1e30 * plain,
        "scores near 1e6": 1e6 + plain,
        "equal scores": torch.zeros_like(plain),
        "the least finite score": plain.index_fill(1, torch.arange(0, 200, 3), least),
    }
    for what, scores in cases.items():
        _assert_masked_or_refused(subject, subject.rows(), scores, what)
    masked = cases["the least finite score"]
    ids = subject.rows()
    probability = subject.make()(ids, masked.clone()).detach().softmax(-1)
    allowed = probability.masked_fill(masked == least, 0)
    assert_unchanged(probability, allowed, "a token with the least finite score became possible", ids, "probability")


def reads_its_arguments_only(subject: Subject) -> None:
    """Nothing is written to input_ids or scores, not even temporarily; arguments may share memory between rows."""
    ids, scores = subject.rows(), subject.scores()
    versions = ids._version, scores._version
    subject.make()(ids, scores)
    assert (ids._version, scores._version) == versions, "the processor wrote to an argument"
    row_ids, row_scores = ids[:1].expand(2, -1), scores[:1].expand(2, -1)  # a write raises, as the rows are one memory
    shared = subject.make()(row_ids, row_scores)
    assert_same_distribution(
        shared, subject.make()(row_ids.clone(), row_scores.clone()), "rows that share memory", row_ids
    )


def returns_a_tensor_of_its_own(subject: Subject) -> None:
    """A returned tensor keeps its values when the processor is called again."""
    processor, ids = subject.make(), subject.rows()
    first = processor(ids[:, :-1], subject.scores(1))
    kept = first.clone()
    for seed in (2, 3):
        processor(ids, subject.scores(seed))
        assert_unchanged(first, kept, "a later call changed the tensor returned by an earlier one", ids)


def draws_from_the_prefix(subject: Subject) -> None:
    """Asked twice, the processor answers the same, and it leaves the global random generators alone."""
    processor, ids, scores = subject.make(), subject.rows(), subject.scores()
    before = _generators()
    first = processor(ids, scores.clone())
    assert _generators() == before, "the processor used a global random generator"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        assert_same_distribution(processor(ids, scores.clone()), first, "asked twice", ids)
        assert_same_distribution(
            subject.make()(ids, scores.clone()), first, "another instance, another global seed", ids
        )


def _generators() -> tuple[Any, ...]:
    """Return the states of the global generators of torch, numpy and Python, comparable by value."""
    name, keys, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), name, np.asarray(keys).tobytes(), *rest, random.getstate()


WIDE_LAWS = (
    keeps_shape_dtype_device,
    agrees_across_dtypes,
    holds_for_long_rows,
    holds_in_large_batches,
    keeps_sparse_masks,
    survives_extreme_scores,
    reads_its_arguments_only,
    returns_a_tensor_of_its_own,
    draws_from_the_prefix,
)
