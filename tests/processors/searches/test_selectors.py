"""Selectors: what each one chooses by hand, against a slow reference, and in a chain."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes import seeded
from transformers import LlamaForSequenceClassification

import logitkit
from logitkit.errors import ModeError, ParameterError, ScoresError
from logitkit.processors.searches import MBR, BestOf, Candidates, chrf, exact_match
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["a prompt", "two"]


def candidates(texts: list[str], weights: list[float] | None = None, logp: list[float] | None = None) -> Candidates:
    """Sequences of one prompt, each of as many tokens as characters."""
    weights = weights or [1 / len(texts)] * len(texts)
    logs = torch.tensor(logp or [0.0] * len(texts))
    tokens = [list(map(ord, text)) for text in texts]
    return Candidates(
        prompt="?", texts=texts, tokens=tokens, logp=logs, weights=torch.tensor(weights, dtype=torch.float64)
    )


def test_likelihood_and_mean_likelihood_by_hand() -> None:
    """-3 nats of one token against -4 of two and -6 of four: the sum prefers the first, the mean the last."""
    some = candidates(["a", "bb", "cccc"], logp=[-3.0, -4.0, -6.0])
    assert BestOf(by="likelihood")(some) == [0, 1, 2]
    assert BestOf(by="mean_likelihood")(some) == [2, 1, 0]


def test_equally_good_sequences_keep_their_order() -> None:
    assert BestOf()(candidates(["a", "b", "c"])) == [0, 1, 2]


def test_self_consistency_counts_answers_by_weight() -> None:
    """Weights .4, .3, .3: the second and the third are one answer in two spellings, of weight .6."""
    some = candidates(["42", "It is 7.", " it  is 7"], weights=[0.4, 0.3, 0.3])
    assert BestOf(by="self_consistency")(some) == [1, 2, 0]
    assert MBR(utility="exact_match")(candidates(["42", "It is 7.", " it  is 7"])) == [1, 2, 0]


def test_a_sequence_of_weight_zero_is_never_preferred() -> None:
    """The first text is the likeliest and the most typical one, but the target of the search forbids it."""
    some = candidates(["ab", "ab c", "x"], weights=[0.0, 0.5, 0.5], logp=[-1.0, -3.0, -2.0])
    assert BestOf(by="likelihood")(some) == [2, 1, 0]
    assert BestOf(by="short", judge=lambda prompt, text: -len(text))(some) == [2, 1, 0]
    assert MBR(utility="chrf")(some)[-1] == 0


def test_texts_that_are_no_samples_are_weighed_by_their_probabilities() -> None:
    """By hand: A of probability .9 agrees by .5 with B and C, which agree by .9 with each other.

    Over the whole list A has .9 + .025 + .025 = .95, and B .45 + .05 + .045 = .545. Among the others alone, as for
    samples, B has more than A.
    """
    agreement = {frozenset("AB"): 0.5, frozenset("AC"): 0.5, frozenset("BC"): 0.9}

    def utility(one: str, other: str) -> float:
        return agreement.get(frozenset([one, other]), 1.0)

    some = candidates(["C", "B", "A"], weights=[0.05, 0.05, 0.9])
    listed = dataclasses.replace(some, sampled=False)
    mbr = MBR(utility="mine", function=utility)
    assert mbr(listed) == [2, 0, 1] and mbr(some) == [0, 1, 2]
    assert mbr.scores(listed).tolist() == pytest.approx([0.545, 0.545, 0.95])
    assert MBR(utility="exact_match")(listed) == [2, 0, 1]  # all texts differ: the likeliest one


def test_mbr_behind_beams_knows_the_probabilities() -> None:
    """Under exact match the likeliest of distinct texts wins; with equal answers, their probabilities add up."""
    call = logitkit.chain("beams(width=6) | mbr(utility='exact_match')").bind(tiny_model(), tiny_tokenizer(), PROMPTS)
    best = logitkit.chain("beams(width=6)").bind(tiny_model(), tiny_tokenizer(), PROMPTS)
    answers = call.texts(call.generate(max_new_tokens=3))
    everything = best.texts(best.generate(max_new_tokens=3, num_return_sequences=6))
    assert best.search is not None and best.search.log_weights is not None
    weights = best.search.log_weights.exp()
    for number, answer in enumerate(answers):
        own = everything[6 * number : 6 * number + 6]
        totals = [float(weights[number][[same_answer(one, other) for other in own]].sum()) for one in own]
        assert answer == own[max(range(6), key=lambda place: totals[place])]


def same_answer(one: str, other: str) -> bool:
    return bool(exact_match(one, other))


def test_no_selector_prefers_a_text_that_breaks_the_constraint() -> None:
    """A text that has not ended has weight 0 under the target, however likely it is."""
    chain = logitkit.chain("smc(6, target='constraint', predicate='viable') | best_of(by='likelihood')")
    ends = list(range(60, 120))
    forbidden = 0
    for seed in range(6):
        torch.manual_seed(seed)
        call = chain.bind(tiny_model(), tiny_tokenizer(), "The sea", viable=lambda rows: [True] * len(rows))
        rows = call.generate(max_new_tokens=4, eos_token_id=ends, pad_token_id=0, num_return_sequences=6)
        ended = [any(token in ends for token in row) for row in rows[:, call.prompts.width :].tolist()]
        assert ended == sorted(ended, reverse=True)
        forbidden += ended.count(False)
    assert forbidden


@pytest.mark.parametrize("search", ["", "goose(8) | ", "rewind(['e ']) | ", "adadec(1.0) | "])
def test_equal_sequences_are_refused(search: str) -> None:
    """Without sampling, all sequences of a prompt are equal, and none is to choose."""
    call = logitkit.chain(f"{search}best_of(n=3)").bind(tiny_model(), tiny_tokenizer(), "ab")
    with pytest.raises(ModeError, match=r"best_of: n must be 1 where .* draws no token.*pass do_sample=True, or write"):
        call.generate(max_new_tokens=2, do_sample=False)
    one = logitkit.chain(f"{search}best_of(n=1)").bind(tiny_model(), tiny_tokenizer(), "ab")
    assert len(one.generate(max_new_tokens=2, do_sample=False)) == 1


def test_a_judge_gets_prompt_and_text() -> None:
    seen = []

    def judge(prompt: str, text: str) -> bool:
        seen.append((prompt, text))
        return text == "b"

    assert BestOf(by="mine", judge=judge)(candidates(["a", "b"])) == [1, 0]
    assert seen == [("?", "a"), ("?", "b")]


def test_a_judge_that_returns_no_number_is_an_error() -> None:
    with pytest.raises(ScoresError, match="best_of: scores must be 2 numbers"):
        BestOf(by="mine", judge=lambda prompt, text: math.nan)(candidates(["a", "b"]))


def reference_chrf(one: str, other: str) -> float:
    """chrF by lists and removal, without counters."""
    one, other = one.replace(" ", ""), other.replace(" ", "")
    if not one or not other:
        return float(one == other)
    precisions, recalls = [], []
    for order in range(1, 7):
        ours = [one[i : i + order] for i in range(len(one) - order + 1)]
        theirs = [other[i : i + order] for i in range(len(other) - order + 1)]
        if not ours or not theirs:
            continue
        left, shared = list(theirs), 0
        for gram in ours:
            if gram in left:
                left.remove(gram)
                shared += 1
        precisions.append(shared / len(ours))
        recalls.append(shared / len(theirs))
    p, r = (sum(each) / len(each) for each in (precisions, recalls))
    return 5 * p * r / (4 * p + r) if p + r else 0.0


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text("ab ", max_size=9), min_size=1, max_size=5), st.data())
def test_mbr_equals_the_mean_utility_to_the_others(texts: list[str], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.05, 1), min_size=len(texts), max_size=len(texts)))
    total = sum(weights)
    some = candidates(texts, weights=[weight / total for weight in weights])
    got = MBR(utility="chrf").scores(some).tolist()
    for number, text in enumerate(texts):
        others = [
            (w, reference_chrf(text, t)) for i, (t, w) in enumerate(zip(texts, weights, strict=True)) if i != number
        ]
        want = sum(w * u for w, u in others) / sum(w for w, _ in others) if others else 0.0
        assert got[number] == pytest.approx(want, abs=1e-9)
        assert chrf(text, text) == 1 and 0 <= got[number] <= 1


class Metric:
    """The interface of a metric of mbrs: all pairs at once, here by chrF or its opposite."""

    def __init__(self, higher: bool = True, scores: Any = None) -> None:
        self.HIGHER_IS_BETTER, self.given, self.asked = higher, scores, []

    def pairwise_scores(self, hypotheses: list[str], references: list[str], source: str | None = None) -> Any:
        self.asked.append((hypotheses, references, source))
        if self.given is not None:
            return self.given
        sign = 1 if self.HIGHER_IS_BETTER else -1
        return torch.tensor([[sign * chrf(one, other) for other in references] for one in hypotheses])


@pytest.mark.parametrize("higher", [True, False])
def test_a_metric_of_all_pairs_equals_a_function_of_two_texts(higher: bool) -> None:
    """Equal texts are asked about once; an error rate, of which less is better, gives the same order."""
    texts, metric = ["ab a", "ab", "b", "ab", "ab b"], Metric(higher)
    got = MBR(utility="mine", function=metric).scores(candidates(texts))
    torch.testing.assert_close(got, MBR(utility="chrf").scores(candidates(texts)), atol=1e-6, rtol=0)
    assert metric.asked == [(["ab a", "ab", "b", "ab b"],) * 2 + ("?",)]


@pytest.mark.parametrize("given", [torch.zeros(2), torch.full((2, 2), torch.nan), [[1.0, 2.0]]])
def test_a_metric_that_returns_nonsense_is_an_error(given: Any) -> None:
    with pytest.raises(ScoresError, match="utility mine must return 2 times 2 finite numbers"):
        MBR(utility="mine", function=Metric(scores=given))(candidates(["a", "b"]))


def test_a_metric_is_passed_to_bind() -> None:
    chain, metric = logitkit.chain("mbr(3, utility='comet')"), Metric()
    call = chain.bind(tiny_model(), tiny_tokenizer(), ["ab", "c"], comet=metric)
    call.generate(max_new_tokens=3)
    assert [asked[2] for asked in metric.asked] == ["ab", "c"]
    with pytest.raises(ParameterError, match=r"utility must be the name of a function.* or of an object with pairwise"):
        chain.bind(tiny_model(), tiny_tokenizer(), "ab", comet="no metric")


def test_one_sequence_is_chosen_without_others() -> None:
    assert MBR()(candidates(["a"])) == [0]


@pytest.mark.parametrize("by", ["likelihood", "mean_likelihood", "self_certainty"])
def test_the_chosen_row_is_the_best_of_its_samples(by: str) -> None:
    """Against a recomputation of every sample in one forward each, under the chain and without it."""
    model, tokenizer, chain = tiny_model(), tiny_tokenizer(), "temperature(0.7)"
    call = logitkit.chain(f"{chain} | best_of(5, by='{by}')").bind(model, tokenizer, PROMPTS)
    torch.manual_seed(2)
    every = call.generate(max_new_tokens=5, num_return_sequences=5)
    torch.manual_seed(2)
    best = call.generate(max_new_tokens=5)
    scores = []
    for row in every:
        width = call.prompts.width
        number = next(n for n in range(2) if torch.equal(row[:width], call.prompts.ids[n]))
        ids = torch.tensor([call.prompts.tokens(number) + call.settings.without_padding(row[width:].tolist())])
        new = ids.shape[1] - len(call.prompts.tokens(number))
        with torch.no_grad():
            raw = model(ids).logits[0, -new - 1 : -1].double()
        logp = (raw / 0.7).log_softmax(-1).gather(-1, ids[0, -new:, None]).sum()
        certain = -(math.log(raw.shape[-1]) + raw.log_softmax(-1)).mean()
        scores.append(float({"likelihood": logp, "mean_likelihood": logp / new, "self_certainty": certain}[by]))
    for number in range(2):
        rows = scores[5 * number : 5 * number + 5]
        assert rows == sorted(rows, reverse=True), "all rows come back best first"
        assert torch.equal(best[number], every[5 * number])


def test_a_selector_alone_chooses_among_independent_samples() -> None:
    """With n = 1 it is plain sampling: 600 first tokens of one prompt follow the law of the chain."""
    call = logitkit.chain("top_k(4) | best_of(1)").bind(tiny_model(), tiny_tokenizer(), ["ab"] * 600)
    torch.manual_seed(0)
    first = call.generate(max_new_tokens=1)[:, -1]
    with torch.no_grad():
        logits = tiny_model()(call.prompts.ids[:1]).logits[0, -1].double()
    top = logits.topk(4)
    expected = 600 * top.values.softmax(-1)
    counts = torch.stack([(first == token).sum() for token in top.indices]).double()
    assert counts.sum() == 600
    assert float(((counts - expected) ** 2 / expected).sum()) < 21.1  # 3 degrees of freedom: 1 in 10,000


def test_a_reward_model_reads_prompt_and_text() -> None:
    """Scores equal those of the model on each text alone; a model with two labels is refused."""
    config = tiny_model().config.__class__(**tiny_model().config.to_dict() | {"num_labels": 1})
    reward: Any = seeded(lambda: LlamaForSequenceClassification(config), 3)
    chain = logitkit.chain("best_of(4, by='reward')")
    call = chain.bind(tiny_model(), tiny_tokenizer(), "ab", reward=reward, tokenizers={"reward": tiny_tokenizer()})
    texts = call.texts(call.generate(max_new_tokens=4, num_return_sequences=4))
    with torch.no_grad():
        want = [
            float(reward(torch.tensor([tiny_tokenizer()("ab" + text)["input_ids"]])).logits[0, 0]) for text in texts
        ]
    assert want == sorted(want, reverse=True)
    reward.config.num_labels = 2
    with pytest.raises(ParameterError, match="a model with one label, got 'reward with 2'"):
        chain.bind(tiny_model(), tiny_tokenizer(), "ab", reward=reward, tokenizers={"reward": tiny_tokenizer()})


def test_functions_are_passed_to_bind() -> None:
    shortest = logitkit.chain("best_of(6, by='brief')")
    call = shortest.bind(tiny_model(), tiny_tokenizer(), "ab", brief=lambda prompt, text: -len(text))
    texts = call.texts(call.generate(max_new_tokens=6, num_return_sequences=6))
    assert list(map(len, texts)) == sorted(map(len, texts))
    close = logitkit.chain("mbr(4, utility='near')")
    call = close.bind(tiny_model(), tiny_tokenizer(), "ab", near=lambda one, other: -abs(len(one) - len(other)))
    assert call.generate(max_new_tokens=4).shape[0] == 1


def test_a_utility_that_returns_nonsense_is_an_error() -> None:
    call = logitkit.chain("mbr(3, utility='mine')").bind(
        tiny_model(), tiny_tokenizer(), "ab", mine=lambda one, other: math.inf
    )
    with pytest.raises(ScoresError, match="utility mine must return a finite number, got inf"):
        call.generate(max_new_tokens=2)


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("best_of(3, by='beauty')", "by must be one of 'likelihood', .* or the name of a judge"),
        ("mbr(3, utility='bleu')", "utility must be 'exact_match' or 'chrf'"),
    ],
)
def test_unknown_names_are_refused_before_a_model_runs(chain: str, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), "ab")


def test_more_sequences_than_there_are_to_choose_from_are_refused() -> None:
    call = logitkit.chain("smc(4) | mbr(6)").bind(tiny_model(), tiny_tokenizer(), "ab")
    with pytest.raises(ModeError, match=r"smc: n must be at most 4.*, got 6; raise its number"):
        call.generate(max_new_tokens=2)
    call = logitkit.chain("mbr(3)").bind(tiny_model(), tiny_tokenizer(), "ab")
    with pytest.raises(ModeError, match="mbr: num_return_sequences must be at most n, the 3 sequences"):
        call.generate(max_new_tokens=2, num_return_sequences=4)


def test_a_selector_behind_a_search_chooses_among_its_particles() -> None:
    """``best_of(by='likelihood')`` behind smc returns the likeliest of all particles, in one search."""
    torch.manual_seed(0)
    call = logitkit.chain("smc(6, alpha=1.0) | best_of()").bind(tiny_model(), tiny_tokenizer(), "ab")
    ids = call.generate(max_new_tokens=4, num_return_sequences=6)
    assert call.trace.search is not None and call.trace.search.forwards == 4 and call.trace.search.peak_rows == 6
    with torch.no_grad():
        logp = tiny_model()(ids).logits[:, 1:-1].log_softmax(-1).gather(-1, ids[:, 2:, None])[..., 0].sum(-1)
    assert logp.tolist() == sorted(logp.tolist(), reverse=True)
