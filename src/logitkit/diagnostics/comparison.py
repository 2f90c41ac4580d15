"""Where two models differ on given texts: token by token, or byte by byte where their tokenizers differ."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor

from logitkit.diagnostics.model_comparison import ComparedText, Measure, ModelComparison, divergences_of
from logitkit.diagnostics.paired_distributions import ByteReader, Reader, TokenReader, refuse_encoder
from logitkit.diagnostics.quadrants import entropy_quadrants
from logitkit.diagnostics.token_differences import TokenDifferences, token_differences
from logitkit.diagnostics.token_spellings import TokenSpellings
from logitkit.errors import NoEffectWarning, ParameterError, PromptError
from logitkit.params import is_valid_unicode
from logitkit.processors.cascade import DivergenceLabels
from logitkit.processors.model_facts import is_same_model
from logitkit.processors.tokens import TokenAgreement, Vocabulary

COMPARED = 2048  # tokens of a text that are compared by default
WINDOW = 1024  # tokens that are read at once by default


# Over 40 lines: the docstring documents fifteen parameters.
def compare(
    model: Any,
    tokenizer: Any,
    other: Any,
    texts: str | Sequence[str | DivergenceLabels],
    *,
    other_tokenizer: Any = None,
    names: tuple[str, str] = ("model", "other"),
    over_bytes: bool = False,
    measure: Measure = "js",
    divergence: float = 0.1,
    entropy: float | None = None,
    beta: float = 1.0,
    plausible: float = 0.01,
    max_tokens: int = COMPARED,
    window: int = WINDOW,
    start: Callable[[int], None] = lambda total: None,
    advance: Callable[[int], None] = lambda count: None,
) -> ModelComparison:
    """Compare two models on given texts.

    Models of one tokenizer are compared at every token but the first, which has no probability. Models of different
    tokenizers are compared at every byte: each distribution is that of the next byte, exact over the tokenizations
    that the tokenizer writes (`ByteTree`), and normalised.

    Args:
        model, tokenizer: the model that is judged, such as a small one or a student.
        other: the model that it is compared with, such as a larger one or a teacher.
        texts: a text or several; answers of a file of divergence labels are compared behind their prompts.
        other_tokenizer: tokenizer of the other model; None: that of the model.
        names: names of the two models.
        over_bytes: compare over bytes also models of one tokenizer.
        measure: divergence of the quadrants: ``js`` in bits, ``kl``, which is KL(model, other), or ``reverse_kl``.
        divergence: threshold of the quadrants in the unit of the measure, >= 0.
        entropy: threshold of the entropy of the model, nats, >= 0; None: its median.
        beta: strength of the contrastive estimate, > 0.
        plausible: share of the largest probability under the other model from which its tokens count in the
            contrastive estimate, 0 to 1; 0 is the estimate of arXiv:2411.19943.
        max_tokens: compare at most this many tokens or bytes of a text, from the first.
        window: read at most this many at once; never more than the context of a model. A longer text is read in
            windows that overlap by a half.
        start: called once with the number of tokens to compare.
        advance: called with the number of tokens after every part.

    Raises:
        ModelError: a model with an encoder; over bytes, a tokenizer that loses bytes.
        PromptError: a text with fewer than two tokens, or with a token that the other model lacks.
        ParameterError: no text, or a parameter outside its range.

    Example:
        >>> from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
        >>> pair = (tiny_model(), tiny_tokenizer(), foreign_model())
        >>> found = compare(*pair, "on the mat", other_tokenizer=foreign_tokenizer())
        >>> found.level, len(found), bool((found.columns.js_bits > 0).all())
        ('bytes', 10, True)
    """
    texts = [texts] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
    _check(texts, measure, divergence, entropy, beta, plausible, max_tokens, window)
    for each in (model, other):
        refuse_encoder(each)
    pair = (model, tokenizer), (other, other_tokenizer or tokenizer)
    if is_same_model(model, other):
        warnings.warn("compare: both models are the same, so nothing differs; name another model", NoEffectWarning, 2)
    agreement = TokenAgreement.of(*pair)
    at_bytes = over_bytes or not agreement.same_text
    reader: Reader
    if at_bytes:
        reader = ByteReader(pair, window=window)
    else:
        reader = TokenReader((model, other), agreement, special=tokenizer.all_special_ids, window=window)
    rows = [_tokens(text, tokenizer, number, at_bytes) for number, text in enumerate(texts, start=1)]
    start(sum(min(len(ids) - first, max_tokens) for ids, first in rows))
    sums = _Sums()
    compared = [_compared(reader, row, max_tokens, (beta, plausible), sums, advance) for row in rows]
    judged = [replace(each, judged=_judged(text, each, at_bytes)) for each, text in zip(compared, texts, strict=True)]
    return ModelComparison(
        names=names,
        level="bytes" if at_bytes else "tokens",
        texts=judged,
        spellings=TokenSpellings(None if at_bytes else tokenizer),
        measure=measure,
        quadrants=entropy_quadrants(
            [text.differences.entropy[:, 0].tolist() for text in compared],
            [divergences_of(text.differences, measure).tolist() for text in compared],
            divergence=divergence,
            entropy=entropy,
        ),
        gained=sums.gained,
        leaks=sums.mean_leaks(),
        window=reader.window,
        beta=beta,
        plausible=plausible,
        begins=_begins(reader, pair) if isinstance(reader, ByteReader) else None,
    )


class _Sums:
    """Sums over all places of all texts."""

    def __init__(self) -> None:
        self.gained, self.leaks, self.places = torch.zeros(0), [0.0, 0.0], 0

    def add(self, model: Tensor, other: Tensor, leaks: tuple[float, float]) -> None:
        """Add some places; logits are ``[places, vocab]``."""
        gained = (other.double().softmax(-1) - model.double().softmax(-1)).sum(0).cpu()
        self.gained = self.gained + gained if self.places else gained
        self.leaks = [known + leak * len(model) for known, leak in zip(self.leaks, leaks, strict=True)]
        self.places += len(model)

    def mean_leaks(self) -> tuple[float, float]:
        """Return the mean leak of each model."""
        return self.leaks[0] / self.places, self.leaks[1] / self.places


def _compared(
    reader: Reader,
    row: tuple[list[int], int],
    most: int,
    estimate: tuple[float, float],
    sums: _Sums,
    advance: Callable[[int], None],
) -> ComparedText:
    """Return one text under both models.

    Args:
        reader: reads both.
        row: the tokens of the text, and the place of the first one that is compared.
        most, advance: as in `compare`.
        estimate: strength and plausibility of the contrastive estimate.
        sums: receives the distributions.
    """
    (ids, first), (beta, plausible) = row, estimate
    read = ids[: first + most]
    parts = []
    for begin, model, other, leaks in reader.read(read, first):
        targets = torch.tensor(read[begin : begin + len(model)], device=model.device)
        parts.append(token_differences(model, other, targets, beta=beta, plausible=plausible))
        sums.add(model, other, leaks)
        advance(len(model))
    return ComparedText(
        prompt_ids=ids[:first],
        differences=TokenDifferences(*(torch.cat(column).cpu() for column in zip(*parts, strict=True))),
        left_out=len(ids) - len(read),
        windows=len(reader.windows(read, first)),
    )


def _tokens(text: str | DivergenceLabels, tokenizer: Any, number: int, over_bytes: bool) -> tuple[list[int], int]:
    """Return the tokens or bytes of a text and the place of the first one that is compared.

    Raises:
        PromptError: nothing is left to compare.
    """
    fewest = 0 if over_bytes else 1
    if isinstance(text, str):
        found = text.encode() if over_bytes else tokenizer(text, verbose=False)["input_ids"]
        ids, first = [int(token) for token in found], 0
    elif over_bytes:
        prompt, answer = (Vocabulary.of(tokenizer).join(part) for part in (text.prompt_ids, text.answer_ids))
        ids, first = list(prompt + answer), len(prompt)
    else:
        ids, first = [*text.prompt_ids, *text.answer_ids], len(text.prompt_ids)
    first = max(first, fewest)
    if len(ids) <= first:
        shown = text[:40] if isinstance(text, str) else text.answer_ids
        raise PromptError(f"compare: text {number} must have a token to compare, got {shown!r}; give a longer one")
    return ids, first


def _judged(text: str | DivergenceLabels, compared: ComparedText, over_bytes: bool) -> list[int] | None:
    """Return the labels that a text came with, one for each compared token; None: it has none, or bytes have none."""
    if isinstance(text, str) or over_bytes or len(text.labels) != len(text.answer_ids):
        return None
    begin = len(compared.prompt_ids) - len(text.prompt_ids)
    return text.labels[begin : begin + len(compared)]


def _begins(reader: ByteReader, pair: Sequence[tuple[Any, Any]]) -> tuple[str, str]:
    """Return the token before every text for each model, as text; empty where there is none."""
    names = [
        "" if begin is None else str(tokenizer.convert_ids_to_tokens(begin))
        for begin, (_, tokenizer) in zip(reader.begins, pair, strict=True)
    ]
    return names[0], names[1]


def _check(
    texts: Sequence[Any],
    measure: str,
    divergence: float,
    entropy: float | None,
    beta: float,
    plausible: float,
    max_tokens: int,
    window: int,
) -> None:
    """Refuse parameters outside their ranges; see `compare`."""
    valid = all(isinstance(one, DivergenceLabels) or (isinstance(one, str) and is_valid_unicode(one)) for one in texts)
    for name, rule, value, holds in (
        ("texts", "one or more texts of valid Unicode, or answers of divergence labels", texts, bool(texts) and valid),
        ("measure", f"one of {', '.join(get_args(Measure))}", measure, measure in get_args(Measure)),
        ("divergence", "a number >= 0", divergence, divergence >= 0),
        ("entropy", "a number >= 0", entropy, entropy is None or entropy >= 0),
        ("beta", "a finite number > 0", beta, 0 < beta < math.inf),
        ("plausible", "a number >= 0 and <= 1", plausible, 0 <= plausible <= 1),
        ("max_tokens", "a whole number >= 1", max_tokens, _is_whole(max_tokens) and max_tokens >= 1),
        ("window", "a whole number >= 8", window, _is_whole(window) and window >= 8),
    ):
        if not holds:
            raise ParameterError("compare", name, rule, value)


def _is_whole(value: object) -> bool:
    """Return whether a value is a whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)
