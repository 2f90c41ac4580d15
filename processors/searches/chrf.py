"""chrF: the agreement of two texts in their character n-grams."""

from __future__ import annotations

from collections import Counter

ORDER, BETA = 6, 2.0


def chrf(hypothesis: str, reference: str) -> float:
    """Return the character F-score of two texts, 0 to 1: n-grams of 1 to 6 characters, recall counts twice.

    Precision and recall are those of all n-grams of one order, averaged over the orders that both texts have; white
    space is left out. Two texts without characters agree fully. Source: Popović 2015, with beta 2.

    By hand: "ab" and "ac" share one of two characters and none of one pair: precision and recall are 1/4.

    >>> chrf("ab", "ac"), chrf("a b", "ab"), chrf("", "a"), chrf("", " ")
    (0.25, 1.0, 0.0, 1.0)
    """
    one, other = ("".join(text.split()) for text in (hypothesis, reference))
    if not one or not other:
        return float(one == other)
    precisions, recalls = [], []
    for order in range(1, min(ORDER, len(one), len(other)) + 1):
        ours, theirs = _counts(one, order), _counts(other, order)
        shared = (ours & theirs).total()
        precisions.append(shared / ours.total())
        recalls.append(shared / theirs.total())
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    if precision + recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


def _counts(text: str, order: int) -> Counter[str]:
    """Return how often each n-gram of this order occurs."""
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))
