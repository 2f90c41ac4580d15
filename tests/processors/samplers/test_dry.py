"""DRY against its definition in a loop over bytes, with rows in every order, breakers inside and across tokens."""

from __future__ import annotations

import math
import random
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import logitkit
from logitkit.errors import ParameterError
from logitkit.processors.engine import Prompts
from logitkit.processors.samplers import DRY, BreakerTable, RowTokens
from logitkit.processors.samplers.repetitions import common_suffixes
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

TOKENS: list[bytes | None] = [b"a", b"b", b"c", b"\n", b"b\nc", b"ab", b"#", b"##", None, b""]
Options = dict[str, float | int]


def suffixes(row: list[int]) -> list[int]:
    """The definition: compare backwards from each place."""
    found = []
    for place in range(len(row) - 1):
        length = 0
        while length <= place and row[place - length] == row[len(row) - 1 - length]:
            length += 1
        found.append(length)
    return found


def after_breaker(row: list[int], breakers: list[str]) -> int:
    """Return the number of tokens behind the last token that holds a byte of a breaker. Special tokens split texts."""
    owners: list[int | None] = []  # of each byte
    text = b""
    for place, token in enumerate(row):
        data = TOKENS[token]
        data = b"\xff" if data is None else data  # in no breaker
        text, owners = text + data, owners + [place] * len(data)
    last = -1
    for breaker in breakers:
        data = breaker.encode()
        for start in range(len(text) - len(data) + 1):
            if text[start : start + len(data)] == data:
                last = max(last, owners[start + len(data) - 1] or 0)
    return len(row) - 1 - last


def reference(
    row: list[int], breakers: list[str], *, multiplier: float, base: float, allowed: int, window: int
) -> list[float]:
    """Return the penalty of each token."""
    part = row[-window:] if window else row
    cap = after_breaker(row, breakers)
    lost = [0.0] * len(TOKENS)
    for token, data in enumerate(TOKENS):
        if data is not None and any(breaker.encode() in data for breaker in breakers):
            continue
        before = [0, *suffixes(part)]  # nothing stands before the first token
        lengths = [min(n, cap) for n, behind in zip(before, part, strict=True) if behind == token]
        if lengths and max(lengths) >= allowed:
            exponent = min(max(lengths) - allowed, math.floor(88.72 / math.log(base)) if base > 1 else 0)
            lost[token] = multiplier * base**exponent
    return lost


@given(row=st.lists(st.integers(0, 2), min_size=1, max_size=40))
@settings(max_examples=150, deadline=None)
def test_common_suffixes_equal_the_definition(row: list[int]) -> None:
    """Few tokens make long and nested repetitions."""
    assert common_suffixes(row) == suffixes(row)


@pytest.mark.parametrize("row", [[5] * 50, [1, 2] * 25, [1, 1, 2] * 20 + [1, 1], [*range(10), -1, *range(10)]])
def test_common_suffixes_of_periods_and_splits(row: list[int]) -> None:
    """Periodic rows; and no text reaches over a negative number."""
    cut = row[row.index(-1) + 1 :] if -1 in row else row
    assert max(common_suffixes(row)) == (max(suffixes(cut)) if -1 not in row else 10)


OPTIONS = st.fixed_dictionaries(
    {
        "multiplier": st.sampled_from([0.5, 2.0]),
        "base": st.sampled_from([1.0, 1.75]),
        "allowed": st.integers(0, 3),
        "window": st.sampled_from([0, 5, 9]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    row=st.lists(st.integers(0, len(TOKENS) - 1), min_size=1, max_size=24),
    breakers=st.lists(st.sampled_from(["\n", "##", "b\n", "ca", "abc"]), max_size=2),
    options=OPTIONS,
)
def test_penalties_equal_the_definition(row: list[int], breakers: list[str], options: Options) -> None:
    """At once, and one token after the other; breakers in tokens, over tokens, and split by a special token."""
    names = {"allowed_length": options["allowed"], **{k: v for k, v in options.items() if k != "allowed"}}
    table = BreakerTable.of(TOKENS, breakers)
    processor, ids = DRY(table=table, **names), torch.tensor([row])
    want = torch.tensor(reference(row, breakers, **options))
    scores = torch.zeros(1, len(TOKENS))
    torch.testing.assert_close(-DRY(table=table, **names)(ids, scores)[0], want)
    for length in range(1, len(row)):
        processor(ids[:, :length], scores)
    torch.testing.assert_close(-processor(ids, scores)[0], want)


def test_rows_in_any_order_equal_new_rows() -> None:
    """Permuted, repeated, rewound, grown by several, as beams and assisted decoding ask."""
    draw = random.Random(0)
    rows = torch.tensor([draw.choices(range(3), k=40) for _ in range(4)])
    used, scores = DRY(table=BreakerTable.of(TOKENS, ["c"])), torch.zeros(4, len(TOKENS))
    for length in (10, 11, 14, 12, 13, 11, 30, 31, 29, 40, 10):
        order = torch.tensor(draw.choices(range(4), k=4))
        ids = rows[order][:, :length]
        assert torch.equal(used(ids, scores), DRY(table=BreakerTable.of(TOKENS, ["c"]))(ids, scores))


@pytest.mark.parametrize("inference", [False, True])
def test_rows_that_the_caller_overwrites_are_not_remembered(inference: bool) -> None:
    """One buffer for all rows: what was there before does not count."""
    used, scores = DRY(), torch.zeros(1, 9)
    with torch.inference_mode(inference):
        buffer = torch.tensor([[1, 2, 3, 1, 2, 0]])
        used(buffer[:, :5], scores)
        for row in ([5, 6, 7, 8, 5, 6], [1, 2, 3, 4, 1, 2], [5, 6, 7, 8, 5, 6]):
            buffer[:] = torch.tensor(row)
            for length in (5, 6):
                want = DRY()(buffer[:, :length].clone(), scores)
                assert torch.equal(used(buffer[:, :length], scores), want)


def test_worked_example() -> None:
    """By hand, allowed 2: a b c a b -> c continues 2 tokens: 0.8; x a b c x a b -> 3 tokens: 0.8 * 1.75."""
    got = DRY()(torch.tensor([[0, 1, 2, 0, 1]]), torch.zeros(1, 5))
    torch.testing.assert_close(got, torch.tensor([[0.0, 0.0, -0.8, 0.0, 0.0]]))
    got = DRY()(torch.tensor([[4, 0, 1, 2, 4, 0, 1]]), torch.zeros(1, 5))
    torch.testing.assert_close(got, torch.tensor([[0.0, 0.0, -1.4, 0.0, 0.0]]))
    got = DRY(window=5)(torch.tensor([[4, 0, 1, 2, 4, 0, 1]]), torch.zeros(1, 5))  # 1 2 4 0 1 repeats one token
    assert got.tolist() == [[0.0] * 5]


def test_the_allowed_length_zero_penalises_every_token_of_the_row() -> None:
    """By hand, base 2: 0 1 0 -> 1 continues one token, 0 follows none, wherever it stands."""
    got = DRY(allowed_length=0, multiplier=1.0, base=2.0)(torch.tensor([[0, 1, 0]]), torch.zeros(1, 3))
    assert got.tolist() == [[-1.0, -2.0, 0.0]]
    assert DRY(allowed_length=0, multiplier=1.0)(torch.tensor([[2]]), torch.zeros(1, 3)).tolist() == [[0.0, 0.0, -1.0]]


def test_a_breaker_inside_a_token_counts() -> None:
    """The token b-newline-c: the repetition of four tokens is one of the two behind it, and it is never penalised."""
    row = torch.tensor([[0, 1, 4, 0, 1, 2, 0, 1, 4, 0, 1]])  # a b [b\nc] a b c a b [b\nc] a b
    plain = -DRY(base=2.0, multiplier=1.0)(row, torch.zeros(1, 10))[0]
    broken = -DRY(base=2.0, multiplier=1.0, table=BreakerTable.of(TOKENS, ["\n"]))(row, torch.zeros(1, 10))[0]
    assert plain.tolist() == [0, 0, 8.0, 0, 1.0, 0, 0, 0, 0, 0]  # a b [b\nc] a b: 5 tokens before c; a b before [b\nc]
    assert broken.tolist() == [0, 0, 1.0, 0, 0, 0, 0, 0, 0, 0]


def test_a_breaker_over_two_tokens_counts() -> None:
    """`##` as two tokens `#`: both belong to the breaker; one `#` alone breaks nothing."""
    table = BreakerTable.of(TOKENS, ["##"])
    twice = torch.tensor([[0, 1, 6, 6, 0, 1, 2, 0, 1, 6, 6, 0, 1]])
    assert (-DRY(base=2.0, multiplier=1.0, table=table)(twice, torch.zeros(1, 10))[0]).tolist()[2] == 1.0
    once = torch.tensor([[0, 1, 6, 0, 1, 2, 0, 1, 6, 0, 1]])
    assert (-DRY(base=2.0, multiplier=1.0, table=table)(once, torch.zeros(1, 10))[0]).tolist()[2] == 8.0


def test_eight_thousand_equal_tokens() -> None:
    """The power ends at 3.4e38; the row keeps a choice where the token is the only one; a step takes linear time."""
    rows = torch.full((1, 8000), 1)
    processor, scores = DRY(), torch.tensor([[0.0, 1.0, 2.0]])
    got = processor(rows, scores)
    assert got[0, [0, 2]].tolist() == [0.0, 2.0] and float(got[0, 1]) == pytest.approx(-0.8 * 1.75**158, rel=1e-5)
    alone = torch.tensor([[-torch.inf, 1.0, -torch.inf]])
    assert processor(rows, alone).tolist() == [[-math.inf, 1.0, -math.inf]]
    assert DRY(multiplier=1e30)(rows, alone.half()).tolist() == [[-math.inf, 1.0, -math.inf]]
    begin = time.thread_time()
    DRY()(rows, scores)
    assert time.thread_time() - begin < 0.5  # 5 ms alone; a quadratic method needs 1 s


def test_padding_begin_token_and_prompt() -> None:
    """Two prompts of unequal length: each row is penalised as if it stood alone; prompt=False sees new tokens alone."""
    ids = torch.tensor([[9, 9, 8, 0, 1], [8, 0, 1, 2, 0]])
    prompts = Prompts(
        ids=ids,
        mask=torch.tensor([[0, 0, 1, 1, 1], [1] * 5]),
        texts=("", ""),
        messages=(None, None),
        adds_specials=True,
    )
    rows = torch.cat([ids, torch.tensor([[9, 9, 8, 0, 1], [1, 2, 0, 1, 2]])], dim=1)
    for prompt, starts, allowed in ((True, (2, 0), 1), (False, (5, 5), 1), (True, (2, 0), 0), (False, (5, 5), 0)):
        own = RowTokens(prompts=prompts, prompt=prompt, begin_tokens=[8])
        batch = DRY(allowed_length=allowed, rows=own)(rows, torch.zeros(2, 10))
        for row, start in enumerate(starts):
            alone = RowTokens(begin_tokens=[8])
            want = DRY(allowed_length=allowed, rows=alone)(rows[row : row + 1, start:], torch.zeros(1, 10))
            torch.testing.assert_close(batch[row : row + 1], want)


@pytest.mark.parametrize("make", [(tiny_model, tiny_tokenizer), (foreign_model, foreign_tokenizer)])
def test_bound_breakers_are_found_however_they_are_tokenized(make: tuple[object, object]) -> None:
    """A text that repeats behind a breaker is penalised less than without; the tokens are the tokenizer's own."""
    model, tokenizer = make[0](), make[1]()  # type: ignore[operator]
    text = "one two; one two; one two"
    lost = {}
    for breakers in ([], [";"], ["two; o"], ["nothing"]):
        call = logitkit.chain([{"name": "dry", "params": {"breakers": breakers}}]).bind(model, tokenizer, text)
        lost[tuple(breakers)] = float(call.composite(call.inputs["input_ids"], torch.zeros(1, 272)).sum())
    assert lost[()] == lost["nothing",] < lost["two; o",] <= 0 and lost[()] < lost[";",] <= 0


def test_empty_breakers_are_refused() -> None:
    """At bind."""
    with pytest.raises(ParameterError, match="dry: breakers must be texts, none empty"):
        logitkit.chain("dry(breakers=['a', ''])").bind(tiny_model(), tiny_tokenizer(), "ab")
