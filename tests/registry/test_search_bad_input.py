"""Bad input of searches and selectors: each has one error that names the part at fault and the way out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import logitkit
from logitkit.errors import ChainError, LogitkitError, ModeError, ScoresError
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model

SEARCHES, SELECTORS = logitkit.names("search"), logitkit.names("selector")
NONSENSE: list[Any] = [float("nan"), None, "much", [0.5, 0.5], torch.zeros(2), object()]


def example(name: str) -> str:
    return logitkit.describe(name).example or f"{name}()"


@pytest.mark.parametrize("name", [*SEARCHES, *SELECTORS])
def test_a_step_behind_a_search_is_refused(name: str) -> None:
    """The error writes the order that is meant; so does one for a search behind a selector."""
    with pytest.raises(ChainError, match=rf"{name} must stand behind top_p.*write top_p\(\.\.\.\) \| {name}\(\.\.\.\)"):
        logitkit.chain(f"{example(name)} | top_p(0.9)")
    if name in SELECTORS:
        with pytest.raises(ChainError, match=rf"{name} must stand behind smc"):
            logitkit.chain(f"{example(name)} | smc(2)")


@pytest.mark.parametrize("name", SEARCHES)
def test_two_searches_are_refused(name: str) -> None:
    for other in SEARCHES:
        with pytest.raises(ChainError, match=f"at most one search, got {name} and {other}; leave one out"):
            logitkit.chain(f"{example(name)} | {example(other)}")
    with pytest.raises(ChainError, match=f"at most one search, got {name} and smc"):
        logitkit.chain(f"{example(name)} | smc(2) | best_of()")


@pytest.mark.parametrize("name", [*SEARCHES, *SELECTORS])
@pytest.mark.parametrize("setting", [{"num_beams": 2}, {"prompt_lookup_num_tokens": 2}], ids=str)
def test_modes_that_replace_the_loop_are_refused(name: str, setting: dict[str, Any]) -> None:
    """By `Call.generate`, by a bare `generate`, and by the configuration of the model."""
    call = logitkit.chain(example(name)).bind(tiny_model(), tiny_tokenizer(), "ab")
    with pytest.raises(ModeError, match=name):
        call.generate(max_new_tokens=2, **setting)
    if "num_beams" in setting:
        settings: dict[str, Any] = {**call.generate_kwargs, **setting, "max_new_tokens": 2}
        with pytest.raises(ModeError, match="num_beams must be 1"):
            tiny_model().generate(
                **call.inputs, logits_processor=call.processors, custom_generate=call.search, **settings
            )


def scorers() -> list[tuple[str, Callable[[Any], Callable[..., Any]], str]]:
    """A chain with a function of the user, a function that returns a value, and the words of the error."""
    return [
        ("best_of(3, by='mine')", lambda value: lambda prompt, text: value, r"best_of: scores must be 3 numbers"),
        ("mbr(3, utility='mine')", lambda value: lambda one, other: value, "mbr: utility mine must return a finite"),
        (
            "smc(3, target='log_weight', log_weight='mine')",
            lambda value: lambda rows: value if not isinstance(value, float) else torch.full((len(rows),), value),
            "smc: mine must return one number below infinity for each of 3 rows",
        ),
        (
            "smc(3, target='constraint', predicate='mine')",
            lambda value: lambda rows: value,
            r"smc: mine must return True or False for each of \d+ rows",
        ),
        (
            "attribute('mine', top=4) | beams(2)",
            lambda value: lambda rows: value if not isinstance(value, float) else torch.full((len(rows),), value),
            "attribute: scorer 'mine' must return one number a row",
        ),
    ]


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(("chain", "make", "words"), scorers(), ids=lambda part: str(part)[:20])
def test_a_scorer_that_returns_nonsense(chain: str, make: Callable[[Any], Any], words: str, value: Any) -> None:
    """NaN, another shape, or no number at all: a `ScoresError`, never an error of torch."""
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), "ab", mine=make(value))
    with pytest.raises(ScoresError, match=words):
        call.generate(max_new_tokens=2)


@pytest.mark.parametrize("value", [1, True, np.float32(0.5), torch.tensor(0.5), torch.tensor([0.5])], ids=repr)
@pytest.mark.parametrize("chain", ["best_of(3, by='mine')", "mbr(3, utility='mine')"])
def test_numbers_of_every_library_are_numbers(chain: str, value: Any) -> None:
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), "ab", mine=lambda *_: value)
    assert call.generate(max_new_tokens=2).shape == (1, 4)


def test_an_error_of_a_scorer_reaches_the_caller() -> None:
    """An exception of the function itself is not reported as a wrong number."""

    def broken(prompt: str, text: str) -> float:
        raise TypeError("a fault of mine")

    call = logitkit.chain("best_of(3, by='broken')").bind(tiny_model(), tiny_tokenizer(), "ab", broken=broken)
    with pytest.raises(TypeError, match="a fault of mine"):
        call.generate(max_new_tokens=2)


@pytest.mark.parametrize("name", SEARCHES)
def test_selectors_read_every_search(name: str) -> None:
    """Each measure of best_of, also self-certainty, behind each search."""
    settings: dict[str, Any] = {"max_new_tokens": 3}
    settings |= {} if name in ("beams", "contrastive_search") else {"do_sample": True}
    for by in ("likelihood", "mean_likelihood", "self_certainty", "self_consistency"):
        chain = f"{example(name)} | best_of(by='{by}')"
        assert len(logitkit.generate(tiny_model(), tiny_tokenizer(), "ab", chain, **settings).texts) == 1


@pytest.mark.parametrize("name", [*SEARCHES, *SELECTORS])
def test_outputs_of_steps_are_refused(name: str) -> None:
    call = logitkit.chain(example(name)).bind(tiny_model(), tiny_tokenizer(), "ab")
    for setting in ({"output_scores": True}, {"return_dict_in_generate": True}):
        with pytest.raises(LogitkitError, match=next(iter(setting))):
            call.generate(max_new_tokens=2, **setting)


@pytest.mark.parametrize("chain", ["goose(8)", "rewind(['e '])", "adadec(9.0)", "contrastive_search(0.6, top=3)"])
@pytest.mark.parametrize("way", ["call", "front door", "attached"])
def test_several_equal_sequences_are_refused(chain: str, way: str) -> None:
    """As plain greedy decoding refuses them, before any forward; with sampling the rows differ."""
    model, forwards = copy.deepcopy(tiny_model()), []
    model.register_forward_hook(lambda *_: forwards.append(1))
    settings: dict[str, Any] = {"max_new_tokens": 6, "num_return_sequences": 3}
    name = chain.partition("(")[0]
    match = f"{name}: num_return_sequences must be .*, got 3; .*num_return_sequences"
    with pytest.raises(ModeError, match=match):
        if way == "call":
            logitkit.chain(chain).bind(model, tiny_tokenizer(), ["ab", "c"]).generate(**settings)
        elif way == "front door":
            logitkit.generate(model, tiny_tokenizer(), "ab", chain, **settings)
        else:
            with logitkit.attach(model, tiny_tokenizer(), chain):
                model.generate(**tiny_tokenizer()("ab", return_tensors="pt"), **settings)
    assert not forwards
    if name != "contrastive_search":
        call = logitkit.chain(chain).bind(model, tiny_tokenizer(), "ab")
        assert len({tuple(row) for row in call.generate(do_sample=True, **settings).tolist()}) == 3


@pytest.mark.filterwarnings("ignore:do_sample=True changes nothing")
def test_a_search_that_never_draws_refuses_several_sequences_also_with_sampling() -> None:
    """At a threshold of 0 every token is compared and none is drawn."""
    for chain, words in (("adadec(0.0)", "adadec: num_return_sequences"), ("adadec(0.0) | mbr(4)", "mbr: n")):
        call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), "ab")
        with pytest.raises(ModeError, match=f"{words} must be 1 where adadec draws no token.*; write"):
            call.generate(max_new_tokens=2, num_return_sequences=1 if "mbr" in chain else 2, do_sample=True)


def test_an_encoder_does_not_run_before_the_refusal() -> None:
    model = copy.deepcopy(encoder_decoder_model())
    model.get_encoder().register_forward_hook(lambda *_: pytest.fail("the encoder ran"))
    call = logitkit.chain("adadec(1.5)").bind(model, tiny_tokenizer(), "ab")
    with pytest.raises(ModeError, match="adadec: num_return_sequences must be 1"):
        call.generate(max_new_tokens=2, num_return_sequences=2)
