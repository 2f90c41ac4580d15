"""Whether a text was among the training data of a model: scores of one text, higher for a member.

- `min_k`: Min-K% Prob, arXiv:2310.16789. Members have few tokens that the model did not expect.
- `min_k_plus_plus`: Min-K%++, arXiv:2404.02936. The same of log-probabilities in units of their own deviation.
- `dc_pdd`: DC-PDD, arXiv:2409.14781. Probabilities calibrated by how common each token is elsewhere.

A score tells nothing by itself: compare texts of one kind and length that the model may have seen with texts that it
cannot have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from logitkit.diagnostics.per_token import TokenStatistics
from logitkit.errors import ParameterError


def min_k(logp: Tensor, *, share: float = 0.2) -> float:
    """Return the mean of the lowest log-probabilities of a text, in nats.

    Args:
        logp: log-probability of each token, nats, ``[tokens]``.
        share: this share of the tokens counts, above 0, at most 1; rounded down, at least one token.

    Raises:
        ParameterError: the share is outside its range.

    Example:
        >>> import torch
        >>> min_k(torch.tensor([-1.0, -5.0, -2.0, -3.0]), share=0.5)  # the lowest two
        -4.0
    """
    return float(logp.sort().values[: _count(logp, share)].mean())


def min_k_plus_plus(statistics: TokenStatistics, *, share: float = 0.2) -> float:
    """Return the mean of the lowest standardised log-probabilities of a text, in deviations.

    A log-probability is standardised by the mean and the deviation that it has when the token is drawn from the model
    (arXiv:2404.02936, equation 3). Departure: where the model is certain, so that the deviation is 0, it counts 0.

    Args:
        statistics: those of the text.
        share: this share of the tokens counts, above 0, at most 1; rounded down, at least one token.

    Raises:
        ParameterError: the share is outside its range.

    Example:
        >>> import torch
        >>> logp, mean, deviation = torch.tensor([[-1.0, -4.0], [-2.0, -2.0], [0.5, 1.0]])
        >>> min_k_plus_plus(TokenStatistics(torch.tensor([1, 2]), logp, mean, deviation), share=0.5)
        -2.0
    """
    excess, certain = statistics.logp - statistics.mean, statistics.deviation == 0
    standardised = (excess / statistics.deviation.masked_fill(certain, 1)).masked_fill(certain, 0)
    return float(standardised.sort().values[: _count(standardised, share)].mean())


def dc_pdd(statistics: TokenStatistics, counts: Tensor, *, clip: float = 0.01) -> float:
    """Return the calibrated score of DC-PDD (arXiv:2409.14781, section 3), in nats.

    Each token that stands in the text for the first time contributes ``-p log f``, at most ``clip``: p is its
    probability under the model, f its frequency in a reference corpus, ``(count + 1) / (total + vocab)``. The score is
    their mean. Departure: the first token of a text has no probability, so it does not count as an occurrence.

    Args:
        statistics: those of the text.
        counts: how often each token occurs in the reference corpus, ``[vocab]``.
        clip: see above, > 0; the authors' code has 0.01.

    Raises:
        ParameterError: the clip is not above 0.

    Example:
        >>> import torch
        >>> logp = torch.tensor([0.5, 0.25, 0.5], dtype=torch.float64).log()
        >>> text = TokenStatistics(torch.tensor([0, 1, 0]), logp, logp, logp)
        >>> counts = torch.tensor([3.0, 0.0])  # so the frequencies are 4/5 and 1/5
        >>> round(dc_pdd(text, counts, clip=9.0), 4)  # (0.5 log 1.25 + 0.25 log 5) / 2
        0.257
    """
    if not clip > 0:
        raise ParameterError("dc_pdd", "clip", "a number > 0", clip)
    frequencies = ((counts.double() + 1) / (counts.double().sum() + len(counts))).log()
    contributions = (-statistics.logp.exp() * frequencies[statistics.ids]).clamp_max(clip)
    seen: dict[int, int] = {}
    for place, token in enumerate(statistics.ids.tolist()):
        seen.setdefault(token, place)
    return float(contributions[list(seen.values())].mean())


def membership_scores(
    statistics: TokenStatistics, *, share: float = 0.2, counts: Tensor | None = None, clip: float = 0.01
) -> dict[str, float]:
    """Return every score of one text; DC-PDD needs the counts of a reference corpus.

    Example:
        >>> from logitkit.diagnostics import token_statistics
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> sorted(membership_scores(token_statistics(tiny_model(), tiny_tokenizer(), "some text")))
        ['log_likelihood', 'min_k', 'min_k_plus_plus']
    """
    scores = {
        "log_likelihood": float(statistics.logp.mean()),
        "min_k": min_k(statistics.logp, share=share),
        "min_k_plus_plus": min_k_plus_plus(statistics, share=share),
    }
    return scores if counts is None else scores | {"dc_pdd": dc_pdd(statistics, counts, clip=clip)}


def token_counts(tokenizer: Any, texts: Sequence[str], vocab: int) -> Tensor:
    """Return how often each token occurs in texts, ``[vocab]``.

    Args:
        tokenizer: the tokenizer of the model.
        texts: the reference corpus.
        vocab: number of logits of the model.

    Raises:
        ParameterError: the corpus has no token.

    Example:
        >>> from logitkit.registry.laws import tiny_tokenizer
        >>> int(token_counts(tiny_tokenizer(), ["a a b"], 300).sum()) > 0
        True
    """
    ids = [token for text in texts for token in tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]
    if not ids:
        raise ParameterError("membership", "reference", "a text with tokens", "none")
    return torch.bincount(torch.tensor(ids), minlength=vocab)


def _count(values: Tensor, share: float) -> int:
    """Return how many tokens a share of them is.

    Raises:
        ParameterError: the share is outside its range.
    """
    if not 0 < share <= 1:
        raise ParameterError("membership", "share", "a number > 0 and <= 1", share)
    return max(1, int(len(values) * share))
