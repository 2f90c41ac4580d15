"""The study of critical tokens of a tuned model: by hand, and on tiny models."""

from __future__ import annotations

import copy
import doctest
import json
from pathlib import Path
from typing import Any

import pytest

from logitkit import models
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import critical_tokens
from studies.critical_tokens import BASE, FORWARD, OWN, RANDOM, REVERSE, REVERSE_RANDOM, TUNED
from studies.records import read_records

PASSAGES = [f"Number {n} said it. Then they all walked {n} miles to the old house" for n in range(14)]


def chatting_tokenizer() -> Any:
    """Return the tiny tokenizer with a template for chats."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    return tokenizer


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with passages; names of models are seeds of tiny models."""
    monkeypatch.setattr(models, "load", lambda name: (tiny_model(int(name)), chatting_tokenizer()))
    monkeypatch.setattr(models, "load_tokenizer", lambda name: chatting_tokenizer())
    monkeypatch.setattr(critical_tokens, "NEW_TOKENS", 6)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in PASSAGES)
    (tmp_path / "lambada_test.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


def test_examples_run() -> None:
    """The examples in the docstrings give the output that they show."""
    assert doctest.testmod(critical_tokens).failed == 0


def test_passages_are_split_into_sentence_and_word(data: Path) -> None:
    """By hand: the last sentence without its last word, and the word."""
    listed = critical_tokens.passages(data / "lambada_test.jsonl")
    assert len(listed) == 14 and {p.word for p in listed} == {"house"}
    assert all(p.sentence == p.before.split(". ")[1] and p.sentence.startswith("Then they all") for p in listed)
    assert all(own.before.endswith(f". {own.sentence}") for own in OWN)


def test_all_arms_answer_every_passage_once(data: Path) -> None:
    """Development passages first, then batches that all arms complete; texts of our own passages alone are kept."""
    out = data / "critical.jsonl"
    for _ in range(2):
        critical_tokens.main(tuned="1", data=data, model="0", items=5, development=3, rows=3, out=out)
        records = read_records(out)
        assert len(records) == 6 * 3 + 10 * 5 + 10 * 2
    halves = [record["half"] for record in records]
    assert halves == ["development"] * 18 + ["held-out"] * 50 + ["samples"] * 20
    assert len({record["item"] for record in records[18 : 18 + 10 * 3]}) == 3
    assert all(0 <= r["changed"] <= r["switched"] <= r["tokens"] <= 6 for r in records)
    assert all(("text" in r) == (r["half"] == "samples") for r in records)


def test_an_arm_that_always_exchanges_writes_the_other_answers(data: Path) -> None:
    """At random with a share of one, and by divergence above nothing, the text is that of the other model."""
    writer = critical_tokens.Writer(tiny_model(), tiny_model(1), chatting_tokenizer())
    chosen = critical_tokens.passages(data / "lambada_test.jsonl")[:3]
    for own, random, other in ((BASE, RANDOM[0.3], TUNED), (TUNED, REVERSE_RANDOM[0.3], BASE)):
        texts = [answer["text"] for answer in writer.answers(other, chosen)]
        for arm in (random, f"{own}, {other} above 0 bits"):
            every = list(writer.answers(arm, chosen, share=1.0))
            assert [answer["text"] for answer in every] == texts
            assert all(answer["switched"] == answer["tokens"] for answer in every)


def test_examples_for_tuning_are_no_items(data: Path) -> None:
    """They come from the end of the list and hold the whole last sentence."""
    critical_tokens.main(data=data, examples=data / "answers.jsonl", tuned_on=2)
    listed = critical_tokens.passages(data / "lambada_test.jsonl")
    written = read_records(data / "answers.jsonl")
    assert [row["completion"] for row in written] == [f"{p.sentence} {p.word}." for p in listed[-2:]]
    assert all(p.before in row["prompt"] for p, row in zip(listed[-2:], written, strict=True))


@pytest.mark.parametrize(("shares", "want"), [((1.0, 0.9, 0.2), 0.3), ((0.5, 0.3, 0.2), 0.1), ((1.0, 1.0, 1.0), 0.6)])
def test_the_highest_threshold_that_recovers_enough_is_chosen(shares: tuple[float, ...], want: float) -> None:
    """The untuned model has none right, the tuned one all; 80 % are enough, else the lowest is taken."""
    arms = {BASE: 0.0, TUNED: 1.0} | dict(zip(FORWARD.values(), shares, strict=True))
    records = [
        {"half": "development", "arm": arm, "item": str(n), "right": n < 10 * share}
        for arm, share in arms.items()
        for n in range(10)
    ]
    assert critical_tokens.chosen_threshold(records) == want


def test_the_table_states_the_share_of_the_gain() -> None:
    """By hand: tuning gains 8 of 10, tokens of divergence recover 6 of them; an unfinished passage is left out."""
    recovered = {RANDOM[0.1]: 1, RANDOM[0.3]: 2, RANDOM[0.6]: 2, FORWARD[0.1]: 8, FORWARD[0.3]: 8, FORWARD[0.6]: 6}
    held_out = {BASE: 0, TUNED: 8, **recovered, REVERSE[0.6]: 0, REVERSE_RANDOM[0.6]: 4}
    halves = {"development": held_out | {FORWARD[0.6]: 8}, "held-out": held_out}
    records = [
        _record(half, arm, n, n < right)
        for half, arms in halves.items()
        for arm, right in arms.items()
        for n in range(10)
    ]
    records.append(_record("held-out", BASE, 10, True))
    rows = [row.split(" | ") for row in critical_tokens.results(records)["answers"].splitlines()[2:]]
    parts = {row[0].removeprefix("| "): row[3][:4] for row in rows}
    assert [row[1] for row in rows] == ["10"] * 10 and {row[4][:5] for row in rows[2:]} == {"0.250"}
    assert [parts[arm] for arm in (FORWARD[0.6], RANDOM[0.6], REVERSE[0.6])] == ["0.75", "0.25", "0.00"]


def _record(half: str, arm: str, number: int, right: bool) -> dict[str, Any]:
    """Return a record of an answer of eight tokens, of which two were exchanged."""
    return {"half": half, "arm": arm, "item": f"{number}", "right": right, "tokens": 8, "switched": 2, "changed": 1}
