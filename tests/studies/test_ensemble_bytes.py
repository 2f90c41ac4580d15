"""Pairs of models over bytes: losses against the enumeration of covers, causes of gains, and what is read again."""

from __future__ import annotations

import doctest
import math
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from logitkit import models
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
from reference.byte_distributions import SlowBytes, tiny
from studies import ensemble_bytes, ensemble_pairs
from studies.ensemble_bytes import ByteMethods
from studies.ensemble_members import EnsembleMembers
from studies.scored_items import ScoredItem

ITEM = ScoredItem(prompt="ab a", options=[" ba ab"], right=0)


def members_of(pairs: dict[str, tuple[Any, Any]]) -> EnsembleMembers:
    """Return the members of an ensemble; the first is the main model."""
    main, *helpers = pairs
    return EnsembleMembers(main=main, helpers=helpers, loaded=pairs, resources={}, tokenizers={})


def with_begin(seed: int) -> tuple[Any, Any]:
    """Return a random model and tokenizer that puts its begin token before a text."""
    model, tokenizer = tiny(seed)
    begin = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)]
    )
    return model.double(), tokenizer


def test_examples_run() -> None:
    """The examples in the docstrings give the output that they show."""
    assert doctest.testmod(ensemble_bytes).failed == 0


@pytest.mark.parametrize("seed", range(4))
def test_losses_are_those_of_the_enumeration(seed: int) -> None:
    """Means, products and mixtures of whole texts of two models whose covers are all enumerated, at two ends."""
    pairs = {"main": with_begin(seed), "other": with_begin(seed + 10)}
    slow = [SlowBytes(*pair) for pair in pairs.values()]
    before, span = ITEM.prompt.encode(), ITEM.options[0].encode()
    for end, answer in zip((6, 3), ByteMethods(members_of(pairs), 0.0).answers(ITEM, [6, 3]), strict=True):
        laws = [[one.distribution(before + span[:place]) for one in slow] for place in range(end)]
        alone = [sum(math.log(laws[i][m][span[i]]) for i in range(end)) for m in (0, 1)]
        mean = product = 0.0
        for place, (first, second) in enumerate(laws):
            mean += math.log(0.3 * first[span[place]] + 0.7 * second[span[place]])
            powers = {letter: first[letter] ** 0.3 * second[letter] ** 0.7 for letter in first if first[letter] > 0}
            product += math.log(powers[span[place]] / sum(powers.values()))
        wanted = {
            "bytes, main alone": alone[0],
            "bytes, other alone": alone[1],
            "bytes, mean, main 0.3": mean,
            "bytes, product, main 0.3": product,
            "bytes, sequence, main 0.5": math.log(0.5 * math.exp(alone[0]) + 0.5 * math.exp(alone[1])),
        }
        for label, logp in wanted.items():
            assert answer["losses"][label] == pytest.approx(-logp / end, abs=1e-5), label
        exact = [one.slow.logp(before + span[:end]) - one.slow.logp(before) for one in slow]
        assert answer["exact"] == pytest.approx(exact, abs=1e-5)
        assert [sum(logp) for logp in answer["logp"]] == pytest.approx(alone, abs=1e-4)


def test_a_text_has_at_least_the_probability_of_its_tokens() -> None:
    """The bytes before a span are also those of other tokens; a model that writes single bytes gains nothing."""
    (answer,) = ByteMethods(members_of({"a": with_begin(1), "b": with_begin(2)}), 0.0).answers(ITEM, [6])
    assert min(answer["start"]) > -1e-6
    single = (tiny_model(), tiny_tokenizer())
    (answer,) = ByteMethods(members_of({"a": single, "b": single}), 0.0).answers(ITEM, [6])
    assert answer["start"] == pytest.approx([0.0, 0.0], abs=1e-4)


def test_a_begin_token_is_read_where_the_tokenizer_writes_it() -> None:
    """Some tokenizers have a begin token that they put before no text."""
    _, plain = tiny(1)
    _, begun = with_begin(1)
    assert plain.bos_token_id is not None and ensemble_bytes.begin_token(plain) is None
    assert ensemble_bytes.begin_token(begun) == begun.bos_token_id


def record_of(kind: str, losses: dict[str, float | None], **more: Any) -> dict[str, Any]:
    """Return a record of the item ``i``."""
    return {"item": "i", "kind": kind, "losses": losses, **more}


def test_causes_of_a_gain_by_hand() -> None:
    """Four bytes: 2.0 over tokens; the end gives 0.75, the start takes 0.25, the normalisation gives 0.125."""
    read = {"tolerance": 0.001, "logp": [[-1.375] * 4], "exact": [-6.0], "start": [1.0]}
    records = [record_of("prose", {"main alone": 2.0}), record_of("prose", {"bytes, main alone": 1.375}, **read)]
    row = "| prose | 1 | main alone | 2.0000 | 0.7500 | 0.2500 | 0.1250 | 1.3750 |"
    assert row in ensemble_bytes.boundaries(records)


def test_errors_of_the_tolerance_by_hand() -> None:
    """The largest difference over methods; an item with an impossible byte counts apart, and has an exact record."""
    records = [
        record_of("prose", {"a": 1.0}),
        record_of("prose", {"x": 1.0, "y": 2.0}, tolerance=0.001),
        record_of("prose", {"x": 1.25, "y": 1.5}, tolerance=0),
        record_of("code", {"x": 1.0, "y": 2.0}, tolerance=0.001),
        {**record_of("prose", {"x": None, "y": 3.0}, tolerance=0.001), "item": "j"},
        {**record_of("prose", {"x": 4.0, "y": 3.0}, tolerance=0), "item": "j"},
    ]
    table = ensemble_bytes.errors_of_tolerance(records)
    assert "| prose | 1 | 0.5000 | 1 of 2 |" in table and "code" not in table
    losses = {(record["item"], record["kind"]): record["losses"] for record in ensemble_pairs.merged(records)}
    assert losses["i", "prose"] == {"a": 1.0, "x": 1.0, "y": 2.0} and losses["j", "prose"] == {"x": 4.0, "y": 3.0}


def test_a_span_is_cut_before_its_last_space() -> None:
    """The space at the beginning of a span does not count."""
    cut = [
        ensemble_pairs.before_the_last_space(ScoredItem(prompt="a", options=[span], right=0))
        for span in (" one tw", " one\n    two th", " one", " one ")
    ]
    assert [item and item.options[0] for item in cut] == [" one", " one\n    two", None, " one"]


def test_only_missing_records_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A span has a record over tokens and one over bytes, as it is and up to its last space; none is made twice."""
    loaded = {"tiny": (tiny_model(), tiny_tokenizer()), "foreign": (foreign_model(), foreign_tokenizer())}
    monkeypatch.setattr(models, "load", lambda name: loaded[name])
    monkeypatch.setenv("LOGITKIT_CACHE", str(tmp_path))
    settings = {"model": "tiny", "helper": "foreign"}
    item = ScoredItem(prompt="on the", options=[" other the"], right=0)
    records = list(ensemble_pairs.SpanReader(settings, [], 0.0).missing("i", "prose", item))
    kinds = [(record["kind"], record.get("tolerance")) for record in records]
    assert kinds == [("prose", 0.0), ("prose, words", 0.0), ("prose", None), ("prose, words", None)]
    assert all(loss is None or loss > 0 for record in records for loss in record["losses"].values())
    assert len(records[1]["logp"][0]) == len(" other")
    assert list(ensemble_pairs.SpanReader(settings, records, 0.0).missing("i", "prose", item)) == []
    again = list(ensemble_pairs.SpanReader(settings, records[1:3], 0.0).missing("i", "prose", item))
    assert again == [records[0], records[3]]


def test_an_item_with_an_impossible_byte_is_read_exactly_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the tolerance makes every byte impossible."""

    class Fake:
        def __init__(self, members: Any, tolerance: float) -> None:
            self.loss = math.inf if tolerance else 2.0

        def answers(self, item: ScoredItem, ends: list[int]) -> list[dict[str, Any]]:
            return [{"losses": {"x": self.loss}, "logp": [[-self.loss] * end]} for end in ends]

    monkeypatch.setattr(ensemble_pairs, "ByteMethods", Fake)
    monkeypatch.setattr(ensemble_pairs.SpanReader, "members", None)
    reader = ensemble_pairs.SpanReader({}, [], 0.5)
    reader.done.add(("i", "prose", None))
    records = list(reader.missing("i", "prose", ScoredItem(prompt="a", options=[" b"], right=0)))
    assert [(r["tolerance"], r["losses"]["x"], r["logp"][0]) for r in records] == [
        (0.5, None, [None, None]),
        (0.0, 2.0, [-2.0, -2.0]),
    ]
