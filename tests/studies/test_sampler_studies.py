"""The studies of samplers: speed relative to top_p, and exact laws at equal diversity."""

from __future__ import annotations

import doctest
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import logitkit
from logitkit import models
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import sampler_laws, sampler_referee, sampler_speed, sampler_strengths
from studies.records import read_records
from studies.sampler_laws import WordPlaces, diversity, law, word_law, word_places
from studies.sampler_strengths import NUCLEUS, PLAIN, SAMPLERS, TOLERANCE, parts_of, strength_for
from studies.scored_items import ScoredItem

LOADED = (tiny_model(), tiny_tokenizer())
ITEMS = [ScoredItem(prompt=f"It was day {number}", options=[word], right=0) for number, word in enumerate(("e", "ab"))]


@pytest.mark.parametrize("module", [sampler_laws, sampler_strengths])
def test_examples_run(module: object) -> None:
    """The examples in the docstrings give the output that they show."""
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_every_sampler_is_timed() -> None:
    """A ratio in each column for the copy and every sampler, and the milliseconds of dry below."""
    table = sampler_speed.table(1, vocabularies=[2100], batches=[1, 2])
    lines = table.split("\n")
    assert lines[0] == "| | V = 2,100, batch 1 | V = 2,100, batch 2 |" and len(lines) == 3 + 12 + 2
    assert all(line.count("|") == 4 for line in lines[3:15]) and "`dry` at 8,000 tokens, V = 2,100" in lines[-1]


@pytest.mark.parametrize("chain", ["", "temperature(1.5) | top_p(0.8)", "min_p(0.02)", "temperature(2.0) | p_less()"])
def test_a_law_is_that_of_scoring(chain: str) -> None:
    """The product over the tokens of a word; impossible words have the probability 0."""
    found = word_law(LOADED, [(1.0, chain)], word_places(LOADED, ITEMS))
    scored = logitkit.score(*LOADED, [one.prompt for one in ITEMS], [one.options[0] for one in ITEMS], chain=chain)
    torch.testing.assert_close(found.words.log(), torch.tensor([one.total for one in scored]).double())


def test_numbers_of_a_law_by_hand() -> None:
    """Two passages, one word of two tokens: 1/4 times 1/2; entropy and equal beginnings are of the first token."""
    rows = torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.5, 0.5]]).log()
    rows = torch.nn.functional.pad(rows, (0, tiny_model().config.vocab_size - 2), value=-math.inf)
    places = WordPlaces(logits=rows, ranks=torch.tensor([0, 1, 1]), passages=torch.tensor([0, 1, 0]))
    found = word_law(LOADED, [(1.0, "")], places)
    assert found.words.tolist() == pytest.approx([0.125, 0.5])
    assert found.entropy == pytest.approx((0.25 * math.log(4) + 0.75 * math.log(4 / 3) + math.log(2)) / 2)
    assert found.same == pytest.approx((0.625 + 0.5) / 2)


def test_the_coin_of_xtc_by_hand_and_over_seeds() -> None:
    """With probability 1/4 only the least top choice and the tail are left; seeds agree within 4 deviations."""
    row = torch.full((1, tiny_model().config.vocab_size), -math.inf)
    row[0, :4] = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    got = law(LOADED, [(1.0, "xtc(0.1, 0.25)")], row)[0, :4]
    torch.testing.assert_close(got, torch.tensor([0.375, 0.225, 0.1125 + 0.1875, 0.0375 + 0.0625]))
    totals, count = torch.zeros(4), 200
    for seed in range(count):
        call = logitkit.chain(f"xtc(0.1, 0.25, seed={seed})").bind(*LOADED, "x")
        totals += call.composite(torch.zeros(1, 1, dtype=torch.long), row).softmax(-1)[0, :4]
    assert abs(float(totals[0]) / count - 0.375) < 4 * 0.5 * (0.25 * 0.75 / count) ** 0.5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_strength_gives_the_entropy(sampler: str) -> None:
    """Of random rows behind a temperature; an entropy above that of a uniform row is not reached."""
    rows = 3 * torch.randn(8, 40, generator=torch.Generator().manual_seed(0))
    rows = torch.nn.functional.pad(rows, (0, tiny_model().config.vocab_size - 40), value=-math.inf)
    target = 1.2 if sampler == "quadratic" else diversity(LOADED, [(1.0, "top_p(0.9)")], rows)[0]
    strength = strength_for(LOADED, sampler, 1.5, rows, target)
    if sampler in ("min_p", "top_p", "top_n_sigma", "top_a", "tail_free", "xtc"):  # steps of single tokens
        assert strength is not None
        assert abs(diversity(LOADED, parts_of(sampler, strength, 1.5), rows)[0] - target) < 0.15
    else:
        assert strength is not None
        assert abs(diversity(LOADED, parts_of(sampler, strength, 1.5), rows)[0] - target) < 2 * TOLERANCE
    assert strength_for(LOADED, sampler, 1.5, rows[:2], 9.0) is None


def test_a_strength_gives_the_share_of_equal_pairs() -> None:
    """A temperature is found in between; the entropy is another one."""
    rows = 3 * torch.randn(8, tiny_model().config.vocab_size, generator=torch.Generator().manual_seed(0))
    strength = strength_for(LOADED, "temperature", 1.0, rows, 0.3, pairs=True)
    assert strength is not None
    assert abs(diversity(LOADED, parts_of("temperature", strength, 1.0), rows)[1] - 0.3) < 0.001


def test_a_small_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Drawn texts agree with the exact law within 4 deviations; a second run computes nothing."""
    monkeypatch.setattr(models, "load", lambda name: LOADED)
    monkeypatch.setattr(sampler_strengths, "DRAWS", 20)
    few = {name: SAMPLERS[name] for name in ("top_p", "temperature", "min_p", "xtc")}
    for module in (sampler_strengths, sampler_referee):  # a deleted entry would be put back at another place
        monkeypatch.setattr(module, "SAMPLERS", few)
    lines = [json.dumps({"text": f"It was day {number} e"}) + "\n" for number in range(12)]
    (tmp_path / "lambada_test.jsonl").write_text("".join(lines), encoding="utf-8")
    out = tmp_path / "out.jsonl"
    sampler_referee.main(data=tmp_path, model=["tiny"], items=12, out=out)
    first = capsys.readouterr().out
    records = read_records(out)
    assert "was day" not in out.read_text(encoding="utf-8")
    equal = {one["entropy"] for one in records if one.get("level") == PLAIN and one["parts"]}
    assert max(equal) - min(equal) < 0.05
    for check in (one["check"] for one in records if "check" in one):
        assert check["draws"] == 200 and abs(check["found"] - check["expected"]) < 4 * check["deviation"] + 1
    monkeypatch.setattr(models, "load", lambda name: pytest.fail("a law is computed again"))
    sampler_referee.main(data=tmp_path, model=["tiny"], items=12, out=out)
    assert capsys.readouterr().out == first and "xtc - top_p | points |" in first


def test_the_temperature_is_chosen_on_development_passages() -> None:
    """Held-out passages prefer another one; an entropy that is not reached is left out."""

    def record(t: float, level: str, words: list[int] | None) -> dict[str, Any]:
        return {"sampler": "min_p", "temperature": t, "level": level, "parts": words, "words": words}

    laws = sampler_referee.Laws(
        [
            {"items": ["question 1", "question 0"]},  # the first is for development
            record(1.0, NUCLEUS, [10, 90]),
            record(1.5, NUCLEUS, [20, 10]),
            record(2.0, NUCLEUS, None),
        ]
    )
    assert laws.chosen_temperature("min_p") == 1.5
    assert laws.record("top_k", 1.0, NUCLEUS) is sampler_referee.NOT_COMPUTED
    assert laws.points(laws.record("min_p", 1.0, NUCLEUS)).tolist() == [0.09]
