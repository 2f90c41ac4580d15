"""The study of generated answers under cascades: the tree of prefixes, labels, thresholds, curves and resuming."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import pytest
import torch

from logitkit.processors.cascade import Cascade, ModelPair, RouterHead, label_divergence, read_labels
from logitkit.registry import Chain
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import cascade_answers, evidence, story_answers
from studies.evidence import half_of
from studies.story_answers import FINAL, RULES, SHARES, Curves, Story, StoryAnswers, is_right, stories

STORIES = [Story("Tom has it.", "red car"), Story("Mia", "blue boat"), Story("a long way off", "green hat")]


@pytest.fixture
def study() -> StoryAnswers:
    """The study of two tiny models that differ."""
    return StoryAnswers(ModelPair(small=tiny_model(), large=tiny_model(1), tokenizer=tiny_tokenizer()))


@pytest.fixture
def head(study: StoryAnswers) -> RouterHead:
    """A head that is trained on labels of three answers, of which every other token counts as divergent."""
    records = list(study.develop(STORIES))
    for record in records:
        record["labels"]["labels"] = [2 * (place % 2) for place in range(len(record["labels"]["labels"]))]
    return study.train(records)


@pytest.mark.parametrize("module", [cascade_answers, story_answers])
def test_examples_run(module: object) -> None:
    """The examples in the docstrings give the output that they show."""
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_answers_are_those_of_the_chains(study: StoryAnswers, head: RouterHead) -> None:
    """Each strategy writes the tokens that `generate` writes with its chain, in a batch of unlike prompts."""
    found = {rule: [0.3, 0.5][rule == "router"] for rule in RULES}
    strategies: dict[str, Any] = {rule: study.by_rule(rule, alpha, head) for rule, alpha in found.items()}
    strategies |= {"random": study.at_random(0.4, 7), **study.alone()}
    answers = study.write(STORIES, strategies)
    chains = {rule: f"cascade('large', {rule!r}, 0.3, temperature=0.0)" for rule in RULES if rule != "router"}
    chains |= {"router": "router('large', 'head', 0.5)", "small": "", "large": ""}
    chains["random"] = "cascade('large', 'random', 0.6, temperature=0.0, seed=7)"
    for name, text in chains.items():
        own, large = study.pair.small, study.pair.large
        given = {key: value for key, value in {"large": large, "head": head}.items() if f"'{key}'" in text}
        model = large if name == "large" else own
        call = Chain(text).bind(model, study.pair.tokenizer, [story.prompt for story in STORIES], **given)
        ids = call.generate(max_new_tokens=story_answers.TOKENS, do_sample=False, eos_token_id=study.ends)
        new = call.ids(ids)[:, call.prompts.width :].tolist()
        for row, answer in zip(new, answers[name], strict=True):
            assert row[: len(answer.ids)] == answer.ids, name
    crossover = Chain("crossover('large', 0.3)").bind(
        study.pair.small, study.pair.tokenizer, STORIES[1].prompt, large=study.pair.large
    )
    ids = crossover.generate(max_new_tokens=story_answers.TOKENS, do_sample=False, eos_token_id=study.ends)
    assert crossover.ids(ids)[0, crossover.prompts.width :].tolist() == answers["js"][1].ids


def test_labels_are_those_of_the_command(study: StoryAnswers, tmp_path: Any) -> None:
    """`label_divergence` gives the same answers, predictions and labels for a judge of the whole text."""
    study.ends = [tiny_tokenizer().eos_token_id]
    expected = label_divergence(
        [story.prompt for story in STORIES],
        tmp_path / "labels.jsonl",
        study.pair,
        judge=FINAL,
        tokens=story_answers.TOKENS,
    )
    got = [record["labels"] for record in study.develop(STORIES)]
    assert [one["answer_ids"] for one in got] == [one.answer_ids for one in expected]
    assert [one["small_ids"] for one in got] == [one.small_ids for one in expected]
    assert [one["labels"] for one in got] == [one.labels for one in expected]
    assert any(2 in one.labels for one in expected) and read_labels(tmp_path / "labels.jsonl")[1] == expected


def test_what_an_answer_states() -> None:
    """The last coloured thing counts; an answer without one, or an empty one, is wrong."""
    story = stories(1)[0]
    other = "pink bag" if story.answer != "pink bag" else "red car"
    assert is_right(f"She has a {other} and a {story.answer.upper()}!", story)
    assert not is_right(f"a {story.answer}, no, a {other}", story)
    assert not any(is_right(text, story) for text in ("", "a dog", "a " + story.answer.split()[1]))


def test_stories_have_one_right_answer_and_keep_their_order() -> None:
    """The fact of the person who is asked about holds the answer; more stories begin with the same ones."""
    found = stories(40)
    assert found[:10] == stories(10) and len({story.prompt for story in found}) == 40
    for prompt, answer in found:
        name = prompt.split("What does ")[1].split(" have?")[0]
        assert f"{name} has a {answer}." in prompt and prompt.count(" has a ") == 2


def held_out(arms: dict[str, list[list[int]]]) -> list[dict[str, Any]]:
    """Return records of as many stories as each strategy has."""
    count = len(next(iter(arms.values())))
    return [{"kind": "held-out", "arms": {name: arm[place] for name, arm in arms.items()}} for place in range(count)]


def test_curves_by_hand() -> None:
    """At a share of 0.375, halfway between 0.25 and 0.5, random tokens have the mean of both, story by story."""
    arms = {"small": [[0, 4, 0, 0]] * 2, "large": [[1, 4, 4, 4]] * 2}
    for share, rights in zip(SHARES, ([0, 0], [0, 1], [1, 1]), strict=True):
        deferred = {0.1: (0, 1), 0.25: (1, 1), 0.5: (2, 2)}[share]
        for seed in story_answers.SEEDS:
            arms[f"random {share:g} {seed}"] = [[r, 4, d, d] for r, d in zip(rights, deferred, strict=True)]
    arms["chow 0.25"] = [[1, 4, 1, 3], [1, 4, 2, 3]]
    curves = Curves(held_out(arms))
    assert curves.share("chow 0.25") == 0.375 and curves.share("chow 0.25", 3) == 0.75
    assert curves.gain("chow 0.25", curves.at_random).tolist() == [50.0, 0.0]
    assert curves.gain("chow 0.25", curves.whole_answers).tolist() == [62.5, 62.5]


def test_a_run_resumes(study: StoryAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run makes each record once and in order; more stories add held-out ones alone; the tables need no model."""
    monkeypatch.setattr(cascade_answers, "held_out_answers", counted(cascade_answers.held_out_answers, calls := []))
    draw = iter(range(10**6))
    monkeypatch.setattr(story_answers, "FINAL", lambda pair: next(draw) % 2 == 0)  # tiny models name no thing
    records: list[dict[str, Any]] = []
    for count in (8, 8, 12):
        asked = stories(count)
        cascade_answers.run(study, records, asked, 2, records.append)
    kinds = [record["kind"] for record in records]
    halves = [half_of(story.prompt) for story in stories(12)]
    first = [half_of(story.prompt) for story in stories(8)]
    assert kinds.count("development") == first.count("development") and kinds.count("chosen") == 1
    assert kinds.count("held-out") == halves.count("held-out") and kinds.count("timed") == 2
    assert calls == ["held-out", "timed", "held-out"]
    for module in (cascade_answers, evidence):
        monkeypatch.setattr(module, "bootstrap_interval", lambda values: (sum(values) / len(values), 0.0, 0.0))
    monkeypatch.setattr(evidence, "sign_flips", lambda differences: 0.5)
    tables = cascade_answers.results(records)
    assert tables.keys() == {"curve", "comparisons", "development", "cost", "samples"}
    assert tables["comparisons"].count("points right") == 33 and "2 of 2" in tables["cost"]


def counted(function: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    """Return a function that notes its second argument."""

    def wrapped(study: Any, kind: str, *rest: Any) -> Any:
        calls.append(kind)
        return function(study, kind, *rest)

    return wrapped


def test_measures_defer_as_the_rules_do() -> None:
    """A position is deferred at alpha exactly if its measure exceeds alpha."""
    generator = torch.Generator().manual_seed(0)
    small, large = (3 * torch.randn(64, 12, generator=generator) for _ in range(2))
    found = story_answers.measures(small, large)
    for rule, values in found.items():
        checked: Any = rule
        for alpha in (0.1, 0.4):
            cascade = Cascade(large=lambda ids: large, rule=checked, alpha=alpha, temperature=0.0)
            chosen = cascade(torch.zeros(64, 1).long(), small).argmax(-1)
            expected = torch.where(values > alpha, large.argmax(-1), small.argmax(-1))
            assert chosen.tolist() == expected.tolist(), rule
