"""Samplers set to a mean entropy: which are compared, the strength of each, and the exact law of each on words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from logitkit.registry import Chain
from logitkit.registry.scoring import continuation_tokens
from studies.sampler_laws import Parts, WordPlaces, crossing, diversity, word_law
from studies.scored_items import ScoredItem

TEMPERATURES = (1.0, 1.5, 2.0)
NUCLEUS, PLAIN = "top_p(0.9)", "plain"  # the two levels of diversity: these samplers at temperature 1
PAIRS = "pairs"  # the third level: two texts of `NUCLEUS` begin alike as often
CELLS = ((1.0, NUCLEUS), (1.5, NUCLEUS), (2.0, NUCLEUS), (2.0, PLAIN), (1.0, PAIRS))
DEFAULTS = ("top_p(0.9)", "min_p(0.1)", "top_n_sigma(1.0)", "p_less()")
SCALE = 100_000  # probabilities are kept as whole numbers of 1 / SCALE
SHORTEST = 10  # passages whose words are also drawn
DRAWS = 60  # texts of each of these
ROWS_OF_CALL = 10  # of these texts
TOLERANCE = 0.005  # of the mean entropy, in nats
TOLERANCE_OF_PAIRS = 0.0005  # of the probability that two texts begin alike
SUBSET = 40  # passages on which a strength is looked for first
Record = dict[str, Any]


class Sampler(NamedTuple):
    """A sampler with one strength: its form, and two strengths between which it is looked for."""

    form: str
    low: float
    high: float


SAMPLERS = {
    "top_p": Sampler("top_p({})", 0.002, 0.999),
    "temperature": Sampler("temperature({})", 0.05, 2.0),
    "top_k": Sampler("top_k({})", 1.0, 30_000.0),
    "min_p": Sampler("min_p({})", 0.0001, 0.99),
    "top_n_sigma": Sampler("top_n_sigma({})", 0.02, 8.0),
    "top_a": Sampler("top_a({})", 0.00001, 1.0),
    "tail_free": Sampler("tail_free({})", 0.01, 0.99999),
    "xtc": Sampler("min_p({}) | xtc(0.1, 0.5)", 0.0001, 0.99),
    "dynamic_temperature": Sampler("dynamic_temperature(0.0, {})", 0.05, 5.0),
    "entropy_temperature": Sampler("entropy_temperature(1.0, {})", 0.01, 60.0),
    "quadratic": Sampler("quadratic({})", 0.002, 5.0),
}


def parts_of(sampler: str, strength: float, temperature: float) -> Parts:
    """Return a sampler of some strength behind a temperature; a `top_k` between two whole numbers mixes both.

    Examples:
        >>> parts_of("min_p", 0.123456, 1.5)
        [(1.0, 'temperature(1.5) | min_p(0.12346)')]
        >>> parts_of("top_k", 20.25, 1.0)
        [(0.75, 'top_k(20)'), (0.25, 'top_k(21)')]
    """
    form = SAMPLERS[sampler].form
    if sampler == "top_k":
        share, below = strength % 1, int(strength)
        pairs = [(1 - share, below), (share, below + 1)]
        return [(round(weight, 4), behind(temperature, form.format(k))) for weight, k in pairs if weight >= 1e-4]
    chain = form.format(f"{strength:.5g}")
    return [(1.0, chain if sampler == "temperature" else behind(temperature, chain))]


def behind(temperature: float, chain: str) -> str:
    """Return a chain behind a temperature."""
    steps = [f"temperature({temperature:g})"] if temperature != 1 else []
    return " | ".join([*steps, *([chain] if chain else [])])


def strength_for(
    loaded: tuple[Any, Any], sampler: str, temperature: float, logits: torch.Tensor, target: float, pairs: bool = False
) -> float | None:
    """Return the strength at which the law of a sampler has a mean diversity; None if no strength reaches it.

    Args:
        loaded: model and tokenizer.
        sampler: a key of `SAMPLERS`.
        temperature: before the sampler.
        logits: before the first token of each passage, ``[passages, vocab]``.
        target: the mean entropy, in nats, or the mean probability of equal tokens.
        pairs: whether the target is of pairs.
    """
    tolerance = TOLERANCE_OF_PAIRS if pairs else TOLERANCE

    def on(rows: torch.Tensor) -> Callable[[float], float]:
        return lambda strength: diversity(loaded, parts_of(sampler, strength, temperature), rows)[pairs]

    low, high = SAMPLERS[sampler].low, SAMPLERS[sampler].high
    rough = crossing(on(logits[:SUBSET]), low, high, target, 10 * tolerance)
    if rough is not None:
        near = [min(max(rough * factor, low), high) for factor in (0.85, 1.15)]
        found = crossing(on(logits), near[0], near[1], target, tolerance)
        if found is not None:
            return found
    return crossing(on(logits), low, high, target, tolerance)


class Settings(NamedTuple):
    """What is computed of one model: a sampler, the temperature before it, and whose entropy it has."""

    sampler: str
    temperature: float
    level: str


def wanted() -> list[Settings]:
    """Return what is computed of each model; levels come before the samplers that are set to them."""
    temperature = [Settings("temperature", 1.0, level) for level in (NUCLEUS, PAIRS)]
    first = [Settings(PLAIN, 1.0, ""), *(Settings(one, t, "") for t in TEMPERATURES for one in DEFAULTS)]
    equal = [Settings(name, *cell) for cell in CELLS for name in SAMPLERS if name != "temperature"]
    # A temperature behind other temperatures is the same law as alone.
    return [*first, *equal, *temperature, *(Settings("top_p", t, "p_less()") for t in TEMPERATURES)]


def computed(loaded: tuple[Any, Any], one: Settings, places: WordPlaces, known: dict[Settings, Record]) -> Record:
    """Return the record of one sampler: its parts, the entropy and the probability of every word.

    Args:
        loaded: model and tokenizer.
        one: the sampler, its temperature and its level.
        places: the words.
        known: the records so far, which hold the level.
    """
    if one.level:
        pairs = one.level == PAIRS
        reference = known[
            Settings(NUCLEUS if pairs else one.level, one.temperature if one.level == "p_less()" else 1.0, "")
        ]
        target = reference["same" if pairs else "entropy"]
        logits = places.logits[: places.count]
        strength = strength_for(loaded, one.sampler, one.temperature, logits, target, pairs)
        if strength is None:
            return {**one._asdict(), "parts": None}
        parts = parts_of(one.sampler, strength, one.temperature)
    else:
        parts = [(1.0, behind(one.temperature, "" if one.sampler == PLAIN else one.sampler))]
    found = word_law(loaded, parts, places)
    words = [round(SCALE * probability) for probability in found.words.tolist()]
    numbers = {"entropy": round(found.entropy, 5), "same": round(found.same, 5)}
    return {**one._asdict(), "parts": parts, **numbers, "words": words}


def drawn(loaded: tuple[Any, Any], record: Record, items: Sequence[ScoredItem]) -> Record:
    """Return how often texts that `generate` draws begin with the right word, beside the exact expectation.

    Args:
        loaded: model and tokenizer.
        record: of a sampler without coins and without a random choice between settings.
        items: the passages of the record; the shortest ones are continued.
    """
    ((_, chain),) = record["parts"]
    chosen = sorted(range(len(items)), key=lambda number: len(items[number].prompt))[:SHORTEST]
    found = 0
    for seed in range(DRAWS // ROWS_OF_CALL):
        torch.manual_seed(seed)
        # The search reads each prompt once for all of its texts; all of them are returned.
        call = Chain(f"{chain} | best_of(n={ROWS_OF_CALL})").bind(*loaded, [items[number].prompt for number in chosen])
        words = [continuation_tokens(call, row, items[number].options[0]) for row, number in enumerate(chosen)]
        ids = call.generate(max_new_tokens=max(map(len, words)), num_return_sequences=ROWS_OF_CALL)
        texts = ids[:, call.prompts.width :].view(len(chosen), ROWS_OF_CALL, -1).tolist()
        found += sum(text[: len(word)] == word for word, own in zip(words, texts, strict=True) for text in own)
    exact = np.array([record["words"][number] / SCALE for number in chosen])
    return {
        "chain": chain,
        "draws": DRAWS * len(chosen),
        "expected": DRAWS * float(exact.sum()),
        "found": found,
        "deviation": float(np.sqrt(DRAWS * (exact * (1 - exact)).sum())),
    }


def settings_of(record: Record) -> Settings:
    """Return what a record is of."""
    return Settings(record["sampler"], record["temperature"], record["level"])
