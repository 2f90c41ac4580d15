"""The law of a sampler, exactly: what it makes of given logits, without drawing anything.

A sampler with coins (`xtc`) and a random choice between settings are mixtures: pairs of a weight and a chain. The coin
of `xtc` is a number of its own at each prefix, so that over seeds the law of a token is the average over the coin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from logitkit.registry import Chain
from logitkit.registry.scoring import continuation_tokens, scores_along
from studies.scored_items import ScoredItem

Parts = Sequence[tuple[float, str]]  # weights, which sum to 1, and chains
ROWS = 16  # rows whose law is computed at once


@dataclass(frozen=True, kw_only=True)
class WordPlaces:
    """The model's logits before each token of the right word of some passages, sorted.

    A law of sorted logits is the sorted law, and samplers that sort take a sixth of the time.

    Attributes:
        logits: of all places, fp32 ``[places, vocab]``, each row from its largest; the first place of each passage
            comes first, in their order.
        ranks: where the token of the word stands in the row of each place, ``[places]``.
        passages: the number of the passage of each place, ``[places]``.
    """

    logits: Tensor
    ranks: Tensor
    passages: Tensor

    @property
    def count(self) -> int:
        """Number of passages."""
        return int(self.passages.max()) + 1


class WordLaw(NamedTuple):
    """What a sampler does with some passages.

    Attributes:
        words: the probability that the sampler writes the tokens of the right word, float64 ``[passages]``.
        entropy: mean entropy of the first token, in nats.
        same: mean probability that two texts of a passage have the same first token.
    """

    words: Tensor
    entropy: float
    same: float


def word_places(loaded: tuple[Any, Any], items: Sequence[ScoredItem], batch: int = 10) -> WordPlaces:
    """Read the right word of each passage in one forward, as `logitkit.score` reads it; short passages first.

    Args:
        loaded: model and tokenizer.
        items: the passages.
        batch: passages of a forward.
    """
    model, tokenizer = loaded
    order = sorted(range(len(items)), key=lambda number: len(items[number].prompt))
    found: list[tuple[int, int, Tensor, Tensor]] = []  # place in the word, passage, logits, rank of the token
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        call = Chain("").bind(model, tokenizer, [items[number].prompt for number in part])
        words = [continuation_tokens(call, row, items[n].options[items[n].right]) for row, n in enumerate(part)]
        for place, (left, scores, tokens) in enumerate(scores_along(call, words)):
            rows, ids = torch.sort(scores, dim=-1, descending=True, stable=True)
            ranks = (ids == tokens[:, None]).int().argmax(-1)
            found += [(place, part[row], rows[i], ranks[i]) for i, row in enumerate(left)]
    found.sort(key=lambda one: one[:2])
    return WordPlaces(
        logits=torch.stack([one[2] for one in found]),
        ranks=torch.stack([one[3] for one in found]),
        passages=torch.tensor([one[1] for one in found]),
    )


def without_coins(chain: str) -> Iterator[tuple[float, Chain]]:
    """Yield the chains between which the coin of an `xtc` at the end of a chain decides, with their probabilities.

    Examples:
        >>> [(weight, str(chain)) for weight, chain in without_coins("top_k(9) | xtc(0.1, 0.25)")]
        [(0.25, 'top_k(top_k=9) | xtc(threshold=0.1, probability=1.0)'), (0.75, 'top_k(top_k=9)')]
    """
    steps = Chain(chain).as_data()
    if not steps or steps[-1]["name"] != "xtc":
        yield 1.0, Chain(chain)
        return
    share = steps[-1]["params"].get("probability", 0.5)
    always = {"name": "xtc", "params": steps[-1]["params"] | {"probability": 1.0}}
    yield share, Chain([*steps[:-1], always])
    yield 1 - share, Chain(steps[:-1])


def law(loaded: tuple[Any, Any], parts: Parts, logits: Tensor) -> Tensor:
    """Return the probability of each token under a mixture of chains, ``[rows, vocab]``.

    Args:
        loaded: model and tokenizer.
        parts: the mixture; the chains depend on the logits alone.
        logits: of the model, ``[rows, vocab]``.
    """
    total = torch.zeros_like(logits)
    prefixes = torch.zeros(len(logits), 1, dtype=torch.long)  # these chains do not look at them
    for weight, chain in parts:
        for share, one in without_coins(chain):
            processed = one.bind(*loaded, "x").composite(prefixes, logits)
            total += weight * share * processed.softmax(-1)
    return total


def word_law(loaded: tuple[Any, Any], parts: Parts, places: WordPlaces) -> WordLaw:
    """Return the exact law of a sampler on the words of some passages.

    Args:
        loaded, parts: as for `law`.
        places: the words.
    """
    logs = torch.zeros(places.count, dtype=torch.float64)
    entropy = same = 0.0
    for start in range(0, len(places.ranks), ROWS):
        part = slice(start, start + ROWS)
        probabilities = law(loaded, parts, places.logits[part])
        chosen = probabilities.gather(1, places.ranks[part, None])[:, 0].double()
        logs.index_add_(0, places.passages[part], chosen.log())
        first = probabilities[: max(0, places.count - start)]
        entropy += float(torch.special.entr(first).sum())
        same += float(first.square().sum())
    return WordLaw(words=logs.exp(), entropy=entropy / places.count, same=same / places.count)


def diversity(loaded: tuple[Any, Any], parts: Parts, logits: Tensor) -> tuple[float, float]:
    """Return the mean entropy of the law of a token, in nats, and the mean probability that two draws are equal.

    Args:
        loaded, parts, logits: as for `law`.
    """
    entropy = same = 0.0
    for start in range(0, len(logits), ROWS):
        chunk = law(loaded, parts, logits[start : start + ROWS])
        entropy += float(torch.special.entr(chunk).sum())
        same += float(chunk.square().sum())
    return entropy / len(logits), same / len(logits)


def crossing(
    function: Callable[[float], float], low: float, high: float, target: float, tolerance: float
) -> float | None:
    """Return where a monotone function of a positive number takes a value; None if it does not between two ends.

    Secants on the logarithm of the number, by the Illinois rule, which keeps the place between two ends.

    Args:
        function: monotone, rising or falling.
        low, high: the ends.
        target: the value.
        tolerance: of the value.

    Examples:
        >>> round(crossing(lambda x: x * x, 0.1, 10.0, 2.0, 1e-6), 4)
        1.4142
    """
    a, b = math.log(low), math.log(high)
    fa, fb = function(low) - target, function(high) - target
    for end, value in ((low, fa), (high, fb)):
        if abs(value) <= tolerance:
            return end
    if (fa > 0) == (fb > 0):
        return None
    for _ in range(60):
        c = (a * fb - b * fa) / (fb - fa)
        fc = function(math.exp(c)) - target
        if abs(fc) <= tolerance:
            break
        if (fc > 0) == (fb > 0):
            b, fb, fa = c, fc, fa / 2
        else:
            a, fa, b, fb = b, fb, c, fc
    return math.exp(c)
