"""Rows for which the steps leave no token: searches drop them, and a prompt without any other row is an error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessor, LogitsProcessorList, SuppressTokensLogitsProcessor

import logitkit
from logitkit.errors import ScoresError
from logitkit.registry.laws import tiny_model, tiny_tokenizer

A, B, X, MARK = tiny_tokenizer()("abx!")["input_ids"]
END = tiny_tokenizer().eos_token_id
STEPS = "choices(['ax', 'by']) | ban_phrases(['ax'])"  # behind "a" only "x" may follow, and "ax" is banned
SEARCHES = ["smc(16, alpha=1.0)", "beams(2)", "beams(width=4, groups=2, diversity=0.5)", "rewind(['zz'])"]
SEARCHES += ["adadec(0.0, top=2, depth=1)", "best_of(n=8)", "mbr(n=8)"]


class Bias(LogitsProcessor):
    """Makes tokens likelier or impossible behind the prompts that begin with a token; None: behind all."""

    def __init__(self, bias: dict[int, float], first: int | None = None) -> None:
        self.bias, self.first = bias, first

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        rows = (
            torch.ones(len(input_ids), 1).bool() if self.first is None else (input_ids == self.first).any(-1)[:, None]
        )
        changed = scores.clone()
        for token, value in self.bias.items():
            changed[:, token] += value
        return torch.where(rows, changed, scores)


def bound(chain: str, prompts: Any = "?") -> Any:
    return logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), prompts)


def texts(chain: str, prompts: Any = "?", **given: Any) -> list[str]:
    torch.manual_seed(0)
    call = bound(chain, prompts)
    return call.texts(call.generate(max_new_tokens=3, **given))


@pytest.mark.parametrize("search", SEARCHES)
def test_a_dead_end_does_not_stop_the_other_rows(search: str) -> None:
    """Plain decoding prefers "a", which leads nowhere; every search writes the only possible text."""
    even = LogitsProcessorList([Bias({A: 9.0, B: 9.0})])
    with pytest.raises(ScoresError, match="ban_phrases: row 0 must keep a token"):
        texts(STEPS, do_sample=False, logits_processor=LogitsProcessorList([Bias({A: 20.0})]))
    assert texts(f"{STEPS} | {search}", logits_processor=even) == ["by"]
    assert texts(f"{STEPS} | {search}", ["?", "another"], logits_processor=even) == ["by", "by"]


@pytest.mark.parametrize("search", ["smc(6)", "beams(2)", "rewind(['zz'])", "best_of(n=8)"])
@pytest.mark.parametrize("way", ["before", "behind", "setting", "processor"])
def test_whoever_removes_the_last_token(search: str, way: str) -> None:
    """A step before the constraint or behind it, a setting of `generate`, or a processor behind the chain."""
    choices, given = "choices(['ax', 'by'])", dict[str, Any]()
    chain = {"before": f"suppress_tokens([{X}]) | {choices}", "behind": f"{choices} | suppress_tokens([{X}])"}
    if way == "setting":
        given["suppress_tokens"] = [X]
    if way == "processor":
        given["logits_processor"] = LogitsProcessorList([SuppressTokensLogitsProcessor([X])])
    assert texts(f"{chain.get(way, choices)} | {search}", **given) == ["by"]


@pytest.mark.parametrize("search", ["smc(3)", "beams(2)", "adadec(9.0)", "best_of(n=3)"])
def test_a_prompt_without_a_row_is_an_error_that_names_it(search: str) -> None:
    """As in plain decoding: no text is better than one that breaks the constraint."""
    forbidden = LogitsProcessorList([Bias({B: -torch.inf}, first=MARK)])
    name = search.partition("(")[0]
    with pytest.raises(ScoresError, match=rf"{name}: .*prompt 1 must keep a"):
        texts(f"{STEPS} | {search}", ["?", "!"], logits_processor=forbidden)


@pytest.mark.parametrize("search", ["goose(4)", "contrastive_search(0.6, top=2)"])
def test_a_search_with_one_row_names_the_step(search: str) -> None:
    with pytest.raises(ScoresError, match="ban_phrases: row 0 must keep a token"):
        texts("choices(['ax']) | ban_phrases(['ax']) | " + search)


def test_dead_rows_weigh_nothing() -> None:
    """All eight samples are returned; those that wrote "a" have weight 0 and come last."""
    torch.manual_seed(1)
    call = bound(f"{STEPS} | best_of(n=8)")
    found = call.texts(call.generate(max_new_tokens=3, num_return_sequences=8))
    assert sorted(set(found)) == ["a", "by"] and found == sorted(found, reverse=True)
    torch.manual_seed(1)
    call = bound(f"{STEPS} | smc(8, ess=0)")
    found = call.texts(call.generate(max_new_tokens=3, num_return_sequences=8))
    weights = call.search.log_weights[0].exp()
    assert (
        torch.equal(weights > 0, torch.tensor([text == "by" for text in found])) and 0 < float((weights > 0).sum()) < 8
    )
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0).double())


def test_a_dead_group_comes_behind_the_second_texts_of_the_others() -> None:
    """Two texts are possible, and four beams; the absent beams have weight 0."""
    call = bound("choices(['ax', 'by', 'bz']) | ban_phrases(['ax']) | beams(width=4, groups=2, diversity=0.0)")
    found = call.texts(call.generate(max_new_tokens=3, num_return_sequences=4))
    assert sorted(found[:2]) in (["by", "by"], ["bz", "bz"]) and set(found) == {"by", "bz"}
    call = bound("choices(['ax', 'by', 'bz']) | ban_phrases(['ax']) | beams(width=4)")
    found = call.texts(call.generate(max_new_tokens=9, num_return_sequences=4))
    weights = call.search.log_weights[0].exp()
    assert sorted(found[:2]) == ["by", "bz"] and weights[0] > weights[1] > 0 and weights[2:].tolist() == [0.0, 0.0]
    assert call.trace.search.forwards == 3  # absent beams keep no forward running


def test_nan_is_no_dead_end() -> None:
    class Broken(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return torch.full_like(scores, torch.nan)

    with pytest.raises(ScoresError, match="got NaN"):
        texts(f"{STEPS} | beams(2)", logits_processor=LogitsProcessorList([Broken()]))


def test_a_call_drops_no_rows_behind_its_search() -> None:
    """The state ends with the search, also where the search ended with an error."""
    call = bound("choices(['ax']) | ban_phrases(['ax']) | beams(2)")
    with pytest.raises(ScoresError, match=r"beams: prompt 0 must keep a row.*ban_phrases: "):
        call.generate(max_new_tokens=3)
    ids = torch.cat([call.prompts.ids, torch.tensor([[A]])], dim=1)
    with pytest.raises(ScoresError, match="ban_phrases: row 0 must keep a token"):
        call.composite(ids, torch.zeros(1, 272))


def test_beams_without_a_chain_drop_rows_too() -> None:
    """A bare `generate` with processors of its own, as beam search of transformers goes on with the other beams."""
    from logitkit.processors.searches import Beams

    class NothingBehindA(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return scores.masked_fill((input_ids[:, -1:] == A), -torch.inf)

    ids = tiny_tokenizer()("?", return_tensors="pt").input_ids
    processors = LogitsProcessorList([Bias({A: 30.0, B: 29.0}), NothingBehindA()])
    settings: dict[str, Any] = {"logits_processor": processors, "max_new_tokens": 3, "pad_token_id": 0}
    got = tiny_model().generate(ids, custom_generate=Beams(width=3), do_sample=False, **settings)
    want = tiny_model().generate(ids, num_beams=3, length_penalty=0.0, do_sample=False, **settings)
    assert torch.equal(got, want) and A not in got[0, 1:-1].tolist()


def best_by_enumeration(choices: list[str], banned: str) -> str | None:
    """The likeliest choice without the phrase under the law of the steps, by recursion over all beginnings."""
    call = bound(f"choices({choices!r})")
    found: dict[str, float] = {}

    def extend(text: str, total: float) -> None:
        ids = torch.tensor([call.prompts.tokens(0) + tiny_tokenizer()(text)["input_ids"]])
        with torch.no_grad():
            logits = tiny_model()(ids).logits[0, -1]
        options = {one[len(text)] for one in choices if one.startswith(text) and len(one) > len(text)}
        kept = {tiny_tokenizer()(letter)["input_ids"][0]: letter for letter in options}
        kept = {token: letter for token, letter in kept.items() if not (text + letter).endswith(banned)}
        kept |= {END: ""} if text in choices else {}
        logp = dict(zip(kept, logits[list(kept)].double().log_softmax(-1).tolist(), strict=True)) if kept else {}
        for token, value in logp.items():
            if token == END:
                found[text] = total + value
            else:
                extend(text + kept[token], total + value)

    extend("", 0.0)
    return max(found, key=lambda text: found[text]) if found else None


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=6, unique=True),
    st.text("ab", min_size=2, max_size=2),
)
def test_wide_beams_find_the_likeliest_text_that_has_no_dead_end(choices: list[str], banned: str) -> None:
    want = best_by_enumeration(choices, banned)
    chain = f"choices({choices!r}) | ban_phrases([{banned!r}]) | beams(width=8)"
    if want is None:
        with pytest.raises(ScoresError, match="beams: prompt 0 must keep a row"):
            bound(chain).generate(max_new_tokens=6)
        return
    call = bound(chain)
    assert call.texts(call.generate(max_new_tokens=6))[0] == want
