"""`ByteBoundary`: the exact conditional distribution, by enumeration, by sampling, and in every decoding mode."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import logitkit
from logitkit.errors import ScoresError
from logitkit.processors.tokens import Vocabulary
from logitkit.registry.laws import LAWS, judge
from logitkit.registry.laws.subjects import Subject
from reference.byte_covers import Enumeration, random_model, random_tokenizer, random_unigram
from reference.byte_samples import begun_tokenizer, conditional, conditional_of, draws, healed, masked, verdict

PROMPTS = ["<s>ab a b", "<s>b bb a b", "<s>aab"]


@functools.cache
def parts(seed: int = 11) -> tuple[Any, Any]:
    """Return a random model over a random tokenizer, and the tokenizer."""
    tokenizer = random_tokenizer(seed, merges=10)
    return random_model(tokenizer, seed), tokenizer


def bound(prompts: Any, seed: int = 11, chain: str = "byte_boundary()", **more: Any) -> Any:
    """Return the chain bound to prompts."""
    return logitkit.chain(chain).bind(*parts(seed), prompts, **more)


def distribution_of(call: Any) -> dict[tuple[int, ...], float]:
    """Return the probability of each sequence that spells the removed bytes, by the chain on the model's logits."""
    (removed,), width = call.prompts.removed, call.prompts.width
    vocabulary = Vocabulary.of(call.tokenizer, call.model.config.vocab_size)
    complete: dict[tuple[int, ...], float] = {}
    pending: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
    while pending:
        ids, mass = pending.pop()
        rows = torch.cat([call.prompts.ids, torch.tensor([ids], dtype=torch.long)], dim=1)
        with torch.no_grad():
            scores = call.model(rows).logits[:, -1]
        assert rows.shape[1] == width + len(ids)
        p = call.composite(rows, scores)[0].double().softmax(-1)
        for token in p.nonzero()[:, 0].tolist():
            longer = (*ids, token)
            if len(vocabulary.join(longer)) >= len(removed):
                complete[longer] = mass * float(p[token])
            else:
                pending.append((longer, mass * float(p[token])))
    return complete


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), text=st.text("ab ", min_size=2, max_size=7))
def test_the_distribution_is_the_enumerated_conditional_one(seed: int, text: str) -> None:
    """Each token sequence that spells the removed bytes has its enumerated conditional probability."""
    call = bound("<s>" + text, seed)
    if not call.prompts.removed[0]:
        return
    kept = tuple(call.prompts.ids[0].tolist()[1:])
    want = conditional(Enumeration(*parts(seed)), kept, call.prompts.removed[0])
    got = distribution_of(call)
    assert got.keys() == want.keys()
    for ids, mass in want.items():
        assert got[ids] == pytest.approx(mass, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), text=st.text("ab ", min_size=2, max_size=7))
@pytest.mark.filterwarnings("ignore:canonical covers")
def test_a_unigram_tokenizer(seed: int, text: str) -> None:
    """The conditional distribution is exact for a unigram model, whose covers are found by encoding again."""
    tokenizer = random_unigram(seed)
    model = random_model(tokenizer, seed)
    call = logitkit.chain("byte_boundary()").bind(model, tokenizer, "<s>" + text)
    if not call.prompts.removed[0]:
        return
    kept = tuple(call.prompts.ids[0].tolist()[1:])
    want = conditional(Enumeration(model, tokenizer), kept, call.prompts.removed[0])
    got = distribution_of(call)
    assert got.keys() == want.keys()
    for ids, mass in want.items():
        assert got[ids] == pytest.approx(mass, abs=1e-5)


def test_by_hand() -> None:
    """ "a" is removed: the tokens "a" and "ab" both spell it, so their weights are p(a) and p(ab)."""
    call = bound("<s>ab a")
    (removed,) = call.prompts.removed
    vocabulary = Vocabulary.of(parts()[1])
    with torch.no_grad():
        p = call.model(call.prompts.ids).logits[0, -1].softmax(-1)
    got = call.composite(call.prompts.ids, p.log()[None])[0].softmax(-1)
    spans = [token for token, text in enumerate(vocabulary.token_bytes) if text and text.startswith(removed)]
    first, second = [token for token in spans if got[token] > 0][:2]
    assert float(got[first] / got[second]) == pytest.approx(float(p[first] / p[second]), rel=1e-5)


def test_samples_follow_the_conditional_distribution() -> None:
    """20,000 samples pass a chi-square test (false alarm 1 in 10,000), which hard mask and healing fail."""
    tokenizer = begun_tokenizer(11)
    call = logitkit.chain("byte_boundary()").bind(random_model(tokenizer, 11), tokenizer, "b bb a b")
    want = conditional_of(call)
    outside, p = verdict(draws(call, want, logits_processor=call.processors), want)
    assert not outside and p > 1e-4
    outside, _ = verdict(draws(call, want, logits_processor=[masked(call)]), want)
    assert outside > 1_000
    assert verdict(healed(call, "b bb a b", want), want)[1] < 1e-12


MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True},
    "beams": {"num_beams": 3},
    "beam sampling": {"num_beams": 2, "do_sample": True},
    "several": {"do_sample": True, "num_return_sequences": 3},
    "static cache": {"cache_implementation": "static"},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_spells_what_was_removed(mode: str) -> None:
    """In each mode, continuations of unequal prompts begin with the removed bytes, and texts leave them out."""
    call = bound(PROMPTS)
    out = call.generate(max_new_tokens=8, **{"do_sample": False, **MODES[mode]})
    vocabulary = Vocabulary.of(call.tokenizer, call.model.config.vocab_size)
    each = len(out) // 3
    texts = call.texts(out)
    for row, ids in enumerate(out.tolist()):
        written = vocabulary.join(ids[call.prompts.width :])
        assert written.startswith(call.prompts.removed[row // each])
        assert texts[row].encode() == written[len(call.prompts.removed[row // each]) :]
    assert any(call.prompts.removed)


@pytest.mark.parametrize("mode", ["assistant", "lookup", "alone"])
def test_assisted_decoding_writes_what_greedy_decoding_does(mode: str) -> None:
    """Assisted decoding, prompt lookup and other prompts in the batch do not change the greedy continuation."""
    want = bound("<s>b bb a b").generate(max_new_tokens=10, do_sample=False)
    if mode == "alone":
        call = bound(["<s>b bb a b", "<s>ab a b a"])
        got = call.generate(max_new_tokens=10, do_sample=False)[:1]
        assert torch.equal(got[:, -10:], want[:, -10:])
        return
    more = {"assistant_model": parts()[0]} if mode == "assistant" else {"prompt_lookup_num_tokens": 2}
    assert torch.equal(bound("<s>b bb a b").generate(max_new_tokens=10, do_sample=False, **more), want)


def test_behind_the_boundary_scores_are_unchanged() -> None:
    """After the removed bytes, the scores are returned unchanged and the model reads nothing more."""
    call = bound(PROMPTS[0])
    out = call.generate(max_new_tokens=12, do_sample=False)
    part, forwards = call.composite.parts[0][1], call.trace.forwards
    scores = torch.randn(1, call.model.config.vocab_size)
    assert part(out, scores) is scores and call.trace.forwards == forwards == {"byte boundary": 2}


def test_scores_that_forbid_the_removed_bytes_are_refused() -> None:
    """Scores that forbid every token that spells the removed bytes are a named error."""
    call = bound("<s>ab a")
    scores = torch.full((1, call.model.config.vocab_size), -torch.inf)
    scores[0, call.tokenizer.eos_token_id] = 0
    with pytest.raises(ScoresError, match="must keep a token that spells the bytes cut from its prompt"):
        call.composite(call.prompts.ids, scores)


class TrimmedSubject(Subject):
    """Subject of the laws on trimmed prompts, over a tokenizer with merges."""

    def rows(self, length: int = 3, padding: int = 0, seed: int = 0) -> torch.Tensor:
        """Return rows that continue the trimmed prompts with the likeliest tokens under random scores."""
        call = bound(_padded(padding))
        generator = torch.Generator().manual_seed(seed)
        rows = call.prompts.ids
        for _ in range(length):
            scores = torch.randn(2, call.model.config.vocab_size, generator=generator)
            rows = torch.cat([rows, call.composite(rows, scores).argmax(-1, keepdim=True)], dim=1)
        return rows

    def scores(self, seed: int = 0, rows: int = 2) -> torch.Tensor:
        """Return random logits."""
        return torch.randn(rows, parts()[0].config.vocab_size, generator=torch.Generator().manual_seed(seed))


def _padded(padding: int) -> dict[str, torch.Tensor]:
    tokenizer = parts()[1]
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    inputs = tokenizer(["<s>b bb a b", "<s>ab ab b"], add_special_tokens=False, return_tensors="pt", padding=True)
    pads = torch.full((2, padding), tokenizer.eos_token_id)
    return {
        "input_ids": torch.cat([pads, inputs["input_ids"]], dim=1),
        "attention_mask": torch.cat([torch.zeros_like(pads), inputs["attention_mask"]], dim=1),
    }


# These laws use rows of their own, or a vocabulary of 256 tokens; here the vocabulary has 23.
OTHER_ROWS = {"depends_only_on_the_prefix", "keeps_masked_tokens_masked"}
OTHER_ROWS |= {"keeps_sparse_masks", "survives_extreme_scores"}


@pytest.mark.parametrize("law_name", sorted(set(LAWS) - OTHER_ROWS))
@pytest.mark.parametrize("length", [0, 1, 3])
def test_laws_on_cut_prompts(law_name: str, length: int) -> None:
    """The laws hold at the cut, inside the removed bytes and after them.

    The laws of `OTHER_ROWS` are checked by `test_masked_tokens_stay_masked` and on the example of the Spec.
    """
    subject = TrimmedSubject("byte_boundary", lambda padding: bound(_padded(padding)).composite.parts[0][1])
    rows = subject.rows
    subject.rows = lambda *_, padding=0, seed=0: rows(length, padding, seed)  # type: ignore[method-assign]
    if length == 0 and law_name in ("forgets", "leaves_its_input_alone", "returns_a_tensor_of_its_own"):
        return  # these laws use a row shorter than the prompt
    if length < 3 and law_name == "tells_rows_apart":
        return  # this law needs rows of nine tokens
    verdict = judge(law_name, subject)
    assert verdict.kept, verdict.reason


def test_masked_tokens_stay_masked() -> None:
    """A masked token stays masked although it spells the removed bytes."""
    call = bound("<s>ab a")
    scores = torch.zeros(1, call.model.config.vocab_size)
    free = call.composite(call.prompts.ids, scores)[0]
    first = int(free.argmax())
    scores[0, first] = -torch.inf
    got = call.composite(call.prompts.ids, scores)[0]
    assert got[first] == -torch.inf and torch.isfinite(got).any() and not torch.isnan(got).any()


def test_a_cut_word_of_a_real_model(smollm2: tuple[Any, Any]) -> None:
    """ "import nump" is continued with "y", which plain decoding does not write there."""
    model, tokenizer = smollm2
    for prompt, want in (("import nump", "y"), ("def f(n):\n    if n <= 1:\n        retu", "rn")):
        call = logitkit.chain("byte_boundary()").bind(model, tokenizer, prompt)
        assert call.texts(call.generate(max_new_tokens=3, do_sample=False))[0].startswith(want)
        plain = logitkit.generate(model, tokenizer, prompt, max_new_tokens=3, do_sample=False)
        assert not plain.texts[0].startswith(want)


def test_only_new_bytes_stop() -> None:
    """A stop string that the prompt ends with does not stop its continuation; one in the new bytes does."""
    call = bound("<s>ab a")
    settings = {"max_new_tokens": 12, "do_sample": False}
    plain = call.generate(**settings)
    stop = call.prompts.removed[0].decode()
    assert call.generate(**settings, stop_strings=[stop], tokenizer=call.tokenizer).shape[1] > call.prompts.width + 1
    new = call.texts(plain)[0]
    stopped = call.texts(call.generate(**settings, stop_strings=new[2], tokenizer=call.tokenizer))[0]
    assert new[2] in stopped and len(stopped) <= len(new)
