"""Answers to questions on short stories by two models: small, large, both by a rule, and both at random.

The stories and their questions are made here, so that an answer is right or wrong. `StoryAnswers` writes them with an
`AnswerTree`, labels the large model's answers as in R2R (arXiv:2505.21600) and trains the router head.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from logitkit.processors.cascade import (
    Cascade,
    ContinuationPair,
    DivergenceLabels,
    ModelPair,
    Router,
    RouterHead,
    SameAnswer,
    router_examples,
    router_features,
    router_head_config,
)
from logitkit.processors.engine import PrefixRandom, js_bits
from studies.answer_trees import Answer, AnswerTree, RowTrace, Strategy

NAMES = ("Tom", "Mia", "Sam", "Lily", "Ben", "Anna", "Max", "Sue", "Tim", "Amy")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "pink", "brown")
THINGS = ("car", "boat", "hat", "ball", "kite", "drum", "cup", "bike", "book", "bag")
FINAL = SameAnswer(pattern=rf"(?i)(?:{'|'.join(COLOURS)}) (?:{'|'.join(THINGS)})")  # what an answer states
RULES = ("chow", "diff", "js", "token_v3", "router")
SHARES = (0.1, 0.25, 0.5)  # of the tokens, which the large model is to write
SEEDS = range(4)  # of deferring at random
TOKENS = 10  # largest number of tokens of an answer


class Story(NamedTuple):
    """A story with a question: the prompt, and the right answer."""

    prompt: str
    answer: str


def stories(count: int) -> list[Story]:
    """Return distinct stories; a larger number begins with those of a smaller one."""
    draw = random.Random(0)
    found: dict[str, Story] = {}
    while len(found) < count:
        people = list(zip(*(draw.sample(words, 2) for words in (NAMES, COLOURS, THINGS)), strict=True))
        name, colour, thing = draw.choice(people)
        facts = " ".join(f"{who} has a {what} {kind}." for who, what, kind in people)
        prompt = f"{facts}\nQuestion: What does {name} have?\nAnswer:"
        found[prompt] = Story(prompt, f"{colour} {thing}")
    return list(found.values())


def measures(small: Tensor, large: Tensor) -> dict[str, Tensor]:
    """Return for each rule the number that a position must exceed as alpha to be deferred, each ``[rows]``.

    Args:
        small, large: logits of both models, ``[rows, vocab]``.

    Examples:
        >>> import torch
        >>> found = measures(torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.2, 0.8]]).log())
        >>> {name: round(float(value), 3) for name, value in found.items()}
        {'chow': 0.4, 'diff': 0.2, 'js': 0.125, 'token_v3': 0.75}
    """
    q, p = small.softmax(-1), large.softmax(-1)
    best, likely = q.max(-1)
    own = p.gather(-1, likely[:, None])[:, 0]
    return {
        "chow": 1 - best,
        "diff": p.amax(-1) - best,
        "js": js_bits(small.log_softmax(-1), large.log_softmax(-1)),
        "token_v3": 1 - own / p.amax(-1),
    }


class Measured:
    """A strategy whose trace holds the `measures` of each row too."""

    def __init__(self, tree: AnswerTree, strategy: Cascade) -> None:
        self.tree, self.strategy, self.trace = tree, strategy, RowTrace()

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores of the strategy."""
        self.trace.values = measures(scores, self.tree.rows.large)
        return self.strategy(ids, scores)


class StoryAnswers:
    """Writes and measures answers of one pair of models.

    Args:
        pair: the models.
    """

    def __init__(self, pair: ModelPair) -> None:
        self.pair, self.tree, self.embed = pair, AnswerTree(pair), pair.small.get_input_embeddings()
        ends = {pair.tokenizer(f"a{end}", add_special_tokens=False)["input_ids"][-1] for end in (".", "\n")}
        self.ends = sorted(ends | {pair.tokenizer.eos_token_id})

    def write(self, asked: Sequence[Story], strategies: dict[str, Strategy]) -> dict[str, list[Answer]]:
        """Return the answers of each strategy."""
        prompts = [story.prompt for story in asked]
        return self.tree.write(prompts, strategies, tokens=TOKENS, ends=self.ends)

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""
        return str(self.pair.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def alone(self) -> dict[str, Strategy]:
        """Return the strategies of one model."""
        return {"small": lambda _, scores: scores, "large": lambda *_: self.tree.rows.large}

    def at_random(self, share: float, seed: int) -> Cascade:
        """Return the strategy that defers a share of the tokens at random."""
        draw = lambda ids: PrefixRandom(seed=seed, prompts=self.tree.prompts)(ids)  # noqa: E731
        return Cascade(
            large=self.tree.large, rule="random", alpha=1 - share, random_numbers=draw, temperature=0, trace=RowTrace()
        )

    def by_rule(self, rule: str, threshold: float, head: RouterHead) -> Strategy:
        """Return the strategy of a rule at a threshold."""
        if rule == "router":
            score = lambda *_: self.score(head)  # noqa: E731
            return Router(large=self.tree.large, score=score, threshold=threshold, trace=RowTrace())
        checked: Any = rule
        return Cascade(large=self.tree.large, rule=checked, alpha=threshold, temperature=0, trace=RowTrace())

    def score(self, head: RouterHead) -> Tensor:
        """Return the router's score of the rows that are being asked, ``[rows]``."""
        rows = self.tree.rows
        return head(router_features(rows.hidden, rows.small, self.embed, head.config.top_logits))

    def develop(self, asked: Sequence[Story]) -> Iterator[dict[str, Any]]:
        """Yield for each development story the labels of the large model's answer, and the measures of random answers.

        The key ``labels`` holds the fields of `DivergenceLabels`, as `label_divergence` returns them.
        """
        strategies = self.alone()
        # The large model's answer, but for one token of the small model.
        strategies |= {f"small at {place}": self._small_at(place) for place in range(TOKENS)}
        strategies |= {f"random {share:g}": Measured(self.tree, self.at_random(share, 0)) for share in SHARES}
        answers = self.write(asked, strategies)
        for number, story in enumerate(asked):
            own = {name: found[number] for name, found in answers.items()}
            mixed = {f"{share:g}": own[f"random {share:g}"] for share in SHARES}
            yield {
                "labels": self._labels(story, own),
                "random": {share: {"ids": answer.ids, "values": answer.values} for share, answer in mixed.items()},
                "answers": {name: self.judged(story, own[name]) for name in ("small", "large")},
            }

    def _small_at(self, place: int) -> Strategy:
        """Return the strategy in which the small model writes the token at this place alone."""

        def scored(ids: Tensor, scores: Tensor) -> Tensor:
            return scores if ids.shape[1] - self.tree.prompts.width == place else self.tree.rows.large

        return scored

    def _labels(self, story: Story, own: dict[str, Answer]) -> dict[str, Any]:
        """Return the fields of the labels of the large model's answer."""
        answer = own["large"].ids
        others = [own[f"small at {place}"].ids for place in range(len(answer))]
        predicted = [ids[place] for place, ids in enumerate(others)]
        labels = []
        for mine, large, ids in zip(predicted, answer, others, strict=True):
            texts = ContinuationPair(prompt=story.prompt, before="", small=self.text(ids), large=self.text(answer))
            labels.append(0 if mine == large else 2 if FINAL(texts) else 1)
        prompt = self.pair.tokenizer(story.prompt)["input_ids"]
        return {"prompt_ids": prompt, "answer_ids": answer, "small_ids": predicted, "labels": labels}

    def judged(self, story: Story, answer: Answer) -> list[int]:
        """Return whether an answer is right, its tokens, those of the large model, and those that needed it."""
        length, values = len(answer.ids), answer.values
        written = values.get("deferral", values.get("routed", [0.0] * length))
        needed = values.get("large needed", written)
        return [int(is_right(self.text(answer.ids), story)), length, round(sum(written)), round(sum(needed))]

    def train(self, development: Sequence[dict[str, Any]]) -> RouterHead:
        """Return a router head that is trained on the labels of development records."""
        config = router_head_config(self.pair.small)
        labels = [DivergenceLabels(prompt=place, **one["labels"]) for place, one in enumerate(development)]
        features, targets = router_examples(labels, self.pair.small, config)
        return RouterHead.fit(features, targets, config, pair=self.pair)

    def thresholds(self, development: Sequence[dict[str, Any]], head: RouterHead) -> dict[str, dict[str, float]]:
        """Return for each rule and share the threshold that defers this share of the tokens of random answers."""
        chosen: dict[str, dict[str, float]] = {rule: {} for rule in RULES}
        for share in map("{:g}".format, SHARES):
            mixed = [one["random"][share] for one in development]
            values = {rule: [v for one in mixed for v in one["values"][rule]] for rule in RULES if rule != "router"}
            texts = [_unlabelled(one["labels"]["prompt_ids"], one["random"][share]["ids"]) for one in development]
            values["router"] = head(router_examples(texts, self.pair.small, head.config)[0]).tolist()
            for rule in RULES:
                chosen[rule][share] = threshold_of(values[rule], float(share))
        return chosen


def _unlabelled(prompt: list[int], answer: list[int]) -> DivergenceLabels:
    """Return an answer for `router_examples` that has no labels yet."""
    return DivergenceLabels(prompt=0, prompt_ids=prompt, answer_ids=answer, small_ids=answer, labels=[0] * len(answer))


def is_right(text: str, story: Story) -> bool:
    """Return whether the last thing that a text names with its colour is the right one.

    Examples:
        >>> [is_right(text, Story("...", "blue boat")) for text in ("Mia has a blue boat.", "Mia has a blue car.")]
        [True, False]
    """
    return not FINAL(ContinuationPair(prompt="", before="", small=text, large=story.answer)) and bool(text)


def threshold_of(values: Sequence[float], share: float) -> float:
    """Return a threshold between 0 and 0.999 that about a share of the values exceeds.

    Examples:
        >>> threshold_of([0.1, 0.2, 0.3, 0.4], 0.25), threshold_of([-0.5, -0.2], 0.5)
        (0.3, 0.0)
    """
    ordered = sorted(values, reverse=True)
    return min(max(ordered[min(round(share * len(ordered)), len(ordered) - 1)], 0.0), 0.999)


class Curves:
    """Quality and shares of all strategies on the held-out stories.

    Args:
        held_out: the records.
    """

    def __init__(self, held_out: Sequence[dict[str, Any]]) -> None:
        names = held_out[0]["arms"]
        self.arms = {name: np.array([record["arms"][name] for record in held_out], dtype=float) for name in names}

    def right(self, name: str) -> Any:
        """Return 100 for each right answer of a strategy, else 0; the mean over seeds at random."""
        found = [name] if name in self.arms else [f"{name} {seed}" for seed in SEEDS]
        return 100 * np.mean([self.arms[one][:, 0] for one in found], axis=0)

    def share(self, name: str, column: int = 2) -> float:
        """Return the share of the tokens that the large model wrote, or with column 3, that it was asked for."""
        found = [name] if name in self.arms else [f"{name} {seed}" for seed in SEEDS]
        both = sum(self.arms[one].sum(0) for one in found)
        return float(both[column] / both[1])

    def at_random(self, share: float) -> Any:
        """Return the quality of each story with this share of tokens deferred at random, by interpolation."""
        names = ["small", *(f"random {s:g}" for s in SHARES), "large"]
        places, values = [self.share(name) for name in names], [self.right(name) for name in names]
        after = min(max(int(np.searchsorted(places, share)), 1), len(names) - 1)
        weight = (share - places[after - 1]) / (places[after] - places[after - 1])
        return (1 - weight) * values[after - 1] + weight * values[after]

    def whole_answers(self, share: float) -> Any:
        """Return the expected quality of each story with this share of whole answers deferred at random."""
        return (1 - share) * self.right("small") + share * self.right("large")

    def gain(self, name: str, other: Callable[[float], Any]) -> Any:
        """Return the points that a strategy has over a way to defer at random, at the share of the strategy."""
        return self.right(name) - other(self.share(name))
