"""Rewinding: phrases are traced to the token in which they began, and the tokens follow the stated distribution."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes import absolute_model, sliding_model
from tests.processors.searches.rewind_reference import began
from transformers import LogitsProcessor, LogitsProcessorList

import logitkit
from logitkit.errors import ParameterError, ScoresError
from logitkit.processors.engine.trace import Trace
from logitkit.processors.samplers.phrases import Origins, PhraseAutomaton
from logitkit.processors.searches import BoundSearch, Rewind, Sampling
from logitkit.processors.tokens import Vocabulary
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model

PAD = 258
PARTS = [b"a", b"b", b"ab", b"\xc3", b"\xa9", b"\xc3\xa9", b"A", b""]
LETTERS = tiny_tokenizer()("abcdefghijklmnopqrstuvwxyz ")["input_ids"]
OTHERS = [token for token in range(272) if token not in LETTERS]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=9), st.booleans())
def test_phrases_are_traced_to_the_token_in_which_they_began(tokens: list[bytes], folded: bool) -> None:
    """Phrases inside each other, over several tokens, and characters whose bytes lie in two tokens."""
    phrases, fold = ["ab", "bab", "aéa", "éé", "aaa"], str.casefold if folded else str
    automaton, origins = PhraseAutomaton(phrases, fold_case=folded), Origins()
    for number, data in enumerate(tokens):
        origins, got = automaton.trace(origins, data, number)
        want = began(tokens[: number + 1], phrases, fold)
        assert got == want
        if got is not None:
            break


def test_by_hand() -> None:
    """'ab' and 'b!' in 'xab!': the b of the third token completes one, '!' one that began in the third."""
    automaton = PhraseAutomaton(["ab", "b!"])
    origins, found = automaton.trace(Origins(), b"xa", 0)
    assert found is None and origins.earliest == 0
    origins, found = automaton.trace(origins, b"b", 1)
    assert found == 0 and origins.tokens == (0, 1)
    assert automaton.trace(origins, b"!", 2)[1] == 1


def test_the_beginning_of_a_phrase_by_hand() -> None:
    """The phrase ab, p(a) = 1/2 and p(b after a) = 1/2: a is kept with probability 1/2 * (1 - 1/2), of 240 texts 60.

    Masking keeps 120, and p given that no phrase follows 80; three standard errors are 20, a false alarm 1 in 370.
    """
    a, b, c = LETTERS[:3]

    class Even(LogitsProcessor):
        def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
            even = torch.full_like(scores, -torch.inf)
            even[:, [b, c] if input_ids.shape[1] > 1 else [a, c]] = 0.0
            return even  # type: ignore[return-value]

    torch.manual_seed(0)
    search = Rewind(phrases=["ab"], vocabulary=Vocabulary.of(tiny_tokenizer(), 272))
    got = tiny_model().generate(
        torch.tensor([LETTERS[3:4]]),
        custom_generate=search,
        logits_processor=LogitsProcessorList([Even()]),
        do_sample=True,
        num_return_sequences=240,
        max_new_tokens=2,
    )
    assert abs(int((got[:, 1] == a).sum()) - 60) < 20
    assert set(got[got[:, 1] == a][:, 2].tolist()) == {c}


def reference(model: Any, row: list[int], phrases: list[str], tokens: int, end: int) -> list[int]:
    """The row after greedy decoding with rewinds, each step by a forward over the whole row, no state but the row."""
    vocabulary, start = Vocabulary.of(tiny_tokenizer(), 272), len(row)
    forbidden: dict[tuple[int, ...], set[int]] = {}
    while len(row) < start + tokens and not (len(row) > start and row[-1] == end):
        with torch.no_grad():
            logits = model(torch.tensor([row])).logits[0, -1].float().log_softmax(-1)
        banned = forbidden.setdefault(tuple(row), set())
        logits[[*OTHERS, *banned]] = -torch.inf
        token = int(logits.argmax())
        place = began([vocabulary.token_bytes[one] or b"" for one in (*row, token)], phrases)
        if place is None:
            row = [*row, token]
        else:
            place = max(place, start)
            forbidden.setdefault(tuple(row[:place]), set()).add([*row, token][place])
            row = row[:place]
    return row


def frequent_pairs(model: Any, ids: torch.Tensor, count: int) -> list[str]:
    """Pairs of ASCII characters that plain decoding writes."""
    options: dict[str, Any] = {"do_sample": True, "suppress_tokens": OTHERS, "max_new_tokens": 12}
    torch.manual_seed(0)
    free = model.generate(ids, num_return_sequences=8, pad_token_id=PAD, eos_token_id=None, **options)
    texts = [tiny_tokenizer().decode(row) for row in free]
    pairs = sorted({text[at : at + 2] for text in texts for at in range(len(text) - 1)})
    return random.Random(0).sample(pairs, count)


SETTINGS: list[dict[str, Any]] = [{}, {"use_cache": False}, {"cache_implementation": "static"}]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("make", [tiny_model, absolute_model, sliding_model])
def test_greedy_tokens_are_those_of_the_reference(make: Any, setting: dict[str, Any]) -> None:
    """In a batch with padding, with windows shorter than the row, and with every kind of cache."""
    model = make()
    ids = torch.tensor(LETTERS)[torch.randint(0, 26, (3, 12), generator=torch.Generator().manual_seed(1))]
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    phrases, end = frequent_pairs(model, ids, 120), LETTERS[4]
    trace = Trace()
    search = BoundSearch(Rewind(phrases=phrases, vocabulary=Vocabulary.of(tiny_tokenizer(), 272)), trace=trace)
    options = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": end, "pad_token_id": PAD, **setting}
    options |= {"suppress_tokens": OTHERS}
    got = model.generate(ids, attention_mask=mask, custom_generate=search, **options)
    assert trace.search is not None and trace.search.notes["rewinds"] > 2
    for number in range(3):
        prompt = ids[number][mask[number].bool()].tolist()
        new = reference(model, prompt, phrases, 10, end)[len(prompt) :]
        tail = got[number, 12:].tolist()
        assert tail[: len(new)] == new and set(tail[len(new) :]) <= {PAD}


def test_going_back_costs_no_forward() -> None:
    """One forward for each token that was written, kept or dropped; none for those that complete a phrase."""
    ids = torch.tensor([LETTERS[:3]])
    phrases = frequent_pairs(tiny_model(), ids, 30)
    trace, vocabulary = Trace(), Vocabulary.of(tiny_tokenizer(), 272)
    search = BoundSearch(Rewind(phrases=phrases, vocabulary=vocabulary), trace=trace)
    tiny_model().generate(ids, custom_generate=search, do_sample=False, max_new_tokens=12, suppress_tokens=OTHERS)
    report = trace.search
    assert report is not None and report.notes["rewinds"] > 0
    written = report.notes["new tokens"] + report.notes["dropped tokens"] - report.notes["rewinds"]
    assert report.forwards == written
    assert report.tokens == 3 + written - 1


def test_without_a_phrase_the_draws_are_those_of_plain_sampling() -> None:
    ids = torch.randint(0, 256, (4, 5), generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {"do_sample": True, "max_new_tokens": 9, "num_return_sequences": 2, "pad_token_id": PAD}
    vocabulary = Vocabulary.of(tiny_tokenizer(), 272)
    rows = []
    for search in (Sampling(), Rewind(phrases=["no such text"], vocabulary=vocabulary)):
        bound = BoundSearch(search)
        bound.seeds = range(4)
        rows.append(tiny_model().generate(ids, custom_generate=bound, **settings))
    assert torch.equal(*rows)


def test_no_output_contains_a_phrase() -> None:
    """Tokens of several characters, samples and greedy rows, phrases folded; the phrases are frequent pairs."""
    model, tokenizer, prompts = foreign_model(), foreign_tokenizer(), ["the other one", "on"]
    torch.manual_seed(0)
    free = logitkit.generate(model, tokenizer, prompts, max_new_tokens=16, do_sample=False).texts
    free += logitkit.generate(model, tokenizer, prompts, max_new_tokens=16, do_sample=True).texts
    pairs = sorted({text[at : at + 2] for text in free for at in range(len(text) - 1)})
    phrases = [pair for pair in pairs if pair.isprintable() and "\ufffd" not in pair]
    chain = [{"name": "rewind", "params": {"phrases": phrases, "fold_case": True}}]
    for sampling in (False, True):
        settings: dict[str, Any] = {"do_sample": sampling, "max_new_tokens": 16, "num_return_sequences": 1 + sampling}
        result = logitkit.generate(model, tokenizer, prompts, chain, **settings)
        assert result.trace.search is not None and result.trace.search.notes["rewinds"] > 0
        for text, prompt in zip(result.texts, [one for one in prompts for _ in range(1 + sampling)], strict=True):
            whole = (prompt[-1] + text).casefold()
            assert not any(phrase.casefold() in whole for phrase in phrases)


def test_a_dead_end_goes_back_further_and_ends_with_an_error() -> None:
    """Behind a the steps leave b alone, which is banned: a is given up too. With c banned as well, nothing is left."""
    chain: list[Any] = [{"name": "choices", "params": {"options": ["ab", "ca"]}}]
    chain += [{"name": "rewind", "params": {"phrases": ["b"]}}]
    model, tokenizer = tiny_model(), tiny_tokenizer()
    for sampling in (False, True):
        settings: dict[str, Any] = {"max_new_tokens": 4, "do_sample": sampling}
        assert logitkit.generate(model, tokenizer, ["x", "yz"], chain, **settings).texts == ["ca", "ca"]
        chain[1]["params"] = {"phrases": ["b", "c"]}
        with pytest.raises(ScoresError, match=r"rewind: a token must be left behind prompt 0, got none.*fewer phrases"):
            logitkit.generate(model, tokenizer, ["x", "yz"], chain, **settings)
        chain[1]["params"] = {"phrases": ["b"]}


class OneWay(LogitsProcessor):
    """The first new token is a, or c with less probability; behind a comes a 79 times, then b; behind c comes c."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        new = input_ids.shape[1] - 1
        scores, (a, b, c) = torch.full_like(scores, -torch.inf), LETTERS[:3]
        if new == 0:
            scores[:, a], scores[:, c] = 3.0, 1.0
        else:
            scores[:, c if input_ids[0, 1] == c else a if new < 80 else b] = 0.0
        return scores  # type: ignore[return-value]


def test_places_far_back_are_reached_again() -> None:
    """A dead end 80 tokens behind the only other choice: every token on the way is given up, one after another."""
    search = Rewind(phrases=["ab"], vocabulary=Vocabulary.of(tiny_tokenizer(), 272))
    processors = LogitsProcessorList([OneWay()])
    bound = BoundSearch(search, trace=(trace := Trace()))
    got = tiny_model().generate(
        torch.tensor([LETTERS[3:4]]),
        custom_generate=bound,
        logits_processor=processors,
        do_sample=False,
        max_new_tokens=84,
    )
    assert got[0, 1:].tolist() == [LETTERS[2]] * 84
    assert trace.search is not None and trace.search.notes["rewinds"] == 80


def test_a_phrase_may_begin_in_the_prompt_and_in_healed_text() -> None:
    """The first new token is forbidden then; a phrase that the prompt itself holds does not count."""
    plain = logitkit.generate(tiny_model(), tiny_tokenizer(), "xyab", max_new_tokens=3, do_sample=False).texts[0]
    phrase = "b" + plain[0]
    chain = [{"name": "rewind", "params": {"phrases": [phrase, "xy"]}}]
    text = logitkit.generate(tiny_model(), tiny_tokenizer(), "xyab", chain, max_new_tokens=3).texts[0]
    assert text[0] != plain[0]
    healed = [{"name": "byte_boundary", "params": {}}, {"name": "rewind", "params": {"phrases": ["the", "he"]}}]
    for prompt in ("in anoth", "on the"):
        found = logitkit.generate(foreign_model(), foreign_tokenizer(), prompt, healed, max_new_tokens=6).texts[0]
        tail = found.removeprefix(prompt)
        assert not any(one in (prompt[-2:] + tail)[1:] for one in ("the", "he") if one not in prompt[-2:])


def test_an_encoder_decoder_goes_back() -> None:
    free = logitkit.generate(encoder_decoder_model(), tiny_tokenizer(), "ab", max_new_tokens=6, do_sample=False).texts[
        0
    ]
    pair = next(free[at : at + 2] for at in range(len(free) - 1) if "\ufffd" not in free[at : at + 2])
    chain = [{"name": "rewind", "params": {"phrases": [pair]}}]
    for setting in SETTINGS:
        text = logitkit.generate(
            encoder_decoder_model(), tiny_tokenizer(), "ab", chain, max_new_tokens=6, **setting
        ).texts[0]
        assert pair not in text


def test_a_streamer_hears_settled_text_alone() -> None:
    spelled = f"suppress_tokens({OTHERS})"
    plain = logitkit.generate(tiny_model(), tiny_tokenizer(), "ab", spelled, max_new_tokens=8, do_sample=False).texts[0]
    heard: list[int] = []

    class Listener:
        def put(self, tokens: Any) -> None:
            heard.extend(tokens.flatten().tolist())

        def end(self) -> None:
            pass

    call = logitkit.chain(f"{spelled} | rewind([{plain[2:4]!r}])").bind(tiny_model(), tiny_tokenizer(), "ab")
    output = call.generate(max_new_tokens=8, streamer=Listener())
    assert heard == output[0].tolist() and call.trace.search is not None and call.trace.search.notes["rewinds"] > 0


@pytest.mark.parametrize("steps", ["cfg(1.5)", "mirostat(tau=3.0)", "frequency_penalty(1.0)", "canonical()"])
def test_steps_see_the_row_as_it_is(steps: str) -> None:
    """A chain that was used on dropped tokens writes what a fresh chain writes on the kept ones."""
    steps = f"suppress_tokens({OTHERS}) | {steps}"
    plain = logitkit.generate(tiny_model(), tiny_tokenizer(), "ab", steps, max_new_tokens=8, do_sample=False).texts[0]
    step: Any = logitkit.chain(steps).as_data()
    chain = [*step, {"name": "rewind", "params": {"phrases": [plain[at : at + 2] for at in (1, 4)]}}]
    result = logitkit.generate(tiny_model(), tiny_tokenizer(), "ab", chain, max_new_tokens=8, do_sample=False)
    assert result.trace.search is not None and result.trace.search.notes["rewinds"] > 0
    assert not any(plain[at : at + 2] in result.texts[0] for at in (1, 4))
    scored = logitkit.score(tiny_model(), tiny_tokenizer(), "ab", [result.texts[0]], chain=steps)
    assert len(scored[0].greedy) == 8


def test_refused() -> None:
    for phrases in ([], [""], ["\ufffd"]):
        with pytest.raises(ParameterError, match="rewind: phrases must be one or more texts"):
            logitkit.chain([{"name": "rewind", "params": {"phrases": phrases}}]).bind(
                tiny_model(), tiny_tokenizer(), "ab"
            )
    special = tiny_tokenizer().convert_ids_to_tokens(257)
    with pytest.raises(ParameterError, match=r"rewind: phrases must be texts without special tokens.*suppress_tokens"):
        logitkit.chain([{"name": "rewind", "params": {"phrases": [special]}}]).bind(
            tiny_model(), tiny_tokenizer(), "ab"
        )
