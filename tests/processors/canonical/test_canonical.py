"""Allowed tokens are exactly those that begin an encoding: compared with the encodings of all texts of few letters."""

from __future__ import annotations

import functools
import itertools
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import BatchEncoding

import logitkit
from logitkit.errors import ModelError, ScoresError
from logitkit.processors.canonical import canonical_prefix
from logitkit.processors.canonical.rules import RuleSource
from logitkit.processors.engine import Constraint
from logitkit.processors.tokens import Vocabulary
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model
from reference.byte_covers import random_model, random_tokenizer, random_unigram
from studies.canonical_successors import compared


def bound(prompts: Any, model: Any = None, tokenizer: Any = None) -> tuple[Any, Any]:
    """The call of ``canonical()`` and its step."""
    call = logitkit.chain("canonical()").bind(model or foreign_model(), tokenizer or foreign_tokenizer(), prompts)
    return call, call.composite.parts[0][1]


def ids_of(*tokens: str) -> list[int]:
    """Ids of tokens of the foreign tokenizer."""
    return list(foreign_tokenizer().convert_tokens_to_ids(list(tokens)))


few_tokenizers = functools.cache(lambda seed: random_tokenizer(seed, merges=8))  # each builds its rules once


def follow(step: Any, prompt: torch.Tensor, tail: list[int]) -> set[int]:
    """The tokens that may follow a prompt and more tokens."""
    rows = torch.cat([prompt, torch.tensor([tail], dtype=torch.long)], dim=1)
    return set(step.allowed(rows)[0].nonzero()[:, 0].tolist())


def test_by_hand() -> None:
    """Behind "o" the tokens "n" and "t" "h": "on" and "th" would have merged, and after "e" the text may end."""
    call, step = bound("e")
    assert isinstance(step, Constraint)
    o, n, t, h, the, end = ids_of("o", "n", "t", "h", "the", "<end>")
    assert {o, t, the, end} <= follow(step, call.prompts.ids, [])
    assert not {n} & follow(step, call.prompts.ids, [o])
    assert not {h} & follow(step, call.prompts.ids, [t])
    assert {t, the, end} <= follow(step, call.prompts.ids, [the])
    assert follow(step, call.prompts.ids, [o, end]) == set(range(300))  # a row that has ended
    assert max(follow(step, call.prompts.ids, [o])) < len(foreign_tokenizer())  # no padding ids


def test_tokens_inside_a_character_are_allowed_and_the_end_is_not() -> None:
    """The bytes of "ж" are two tokens; between them the text is incomplete, though it decodes to something."""
    call, step = bound("e")
    first, second = foreign_tokenizer()("ж", add_special_tokens=False)["input_ids"]
    end, e = ids_of("<end>", "e")
    assert first in follow(step, call.prompts.ids, [])
    inside = follow(step, call.prompts.ids, [first])
    assert second in inside and not {end, e} & inside
    assert end in follow(step, call.prompts.ids, [first, second])


@settings(max_examples=12)
@given(seed=st.integers(0, 2), text=st.text("ab thon'1\né🦜", max_size=9), cut=st.integers(0, 9), small=st.booleans())
def test_forbidden_tokens_are_the_complement(seed: int, text: str, cut: int, small: bool) -> None:
    """The ids of the fast path are those that the mask of the whole vocabulary lacks, each once."""
    tokenizer = few_tokenizers(seed) if small else foreign_tokenizer()
    rules = RuleSource(tokenizer, len(tokenizer) + 3).rules()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:cut]
    context = canonical_prefix(rules, ids).context
    assert sorted(rules.forbidden(context).tolist()) == (~rules.successors(context)).nonzero()[0].tolist()


def written(encode: Any, letters: str, longest: int) -> set[tuple[int, ...]]:
    """All beginnings of the encodings of all texts of ``longest`` letters."""
    texts = ("".join(text) for text in itertools.product(letters, repeat=longest))
    return {tuple(ids[:count]) for ids in map(encode, texts) for count in range(len(ids) + 1)}


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000), text=st.text("ab ", min_size=1, max_size=3), split=st.booleans(), data=st.data())
def test_masks_equal_all_texts(seed: int, text: str, split: bool, data: st.DataObject) -> None:
    """A token is allowed if it begins an encoding of some text, and the end if the tokens are that of their text."""
    tokenizer = random_tokenizer(seed, merges=8, split=split)
    model = random_model(tokenizer)

    def encode(of: str) -> list[int]:
        return list(tokenizer(of, add_special_tokens=False)["input_ids"])

    begin = written(encode, "ab ", 6)
    call, step = bound(text, model, tokenizer)
    vocabulary, row = Vocabulary.of(tokenizer), encode(text)
    while len(vocabulary.join(row)) <= 3:
        allowed = follow(step, call.prompts.ids, row[len(encode(text)) :])
        ends = {number for number in allowed if number in vocabulary.special}
        assert ends == (set(vocabulary.special) if encode(tokenizer.decode(row)) == row else set())
        for token, token_bytes in enumerate(vocabulary.token_bytes):
            if token_bytes and len(vocabulary.join([*row, token])) <= 3:
                assert (token in allowed) == ((*row, token) in begin), (row, token)
        row.append(data.draw(st.sampled_from(sorted(allowed - ends))))


@settings(max_examples=5)
@given(seed=st.integers(0, 10_000), prefix=st.booleans())
def test_tokenizers_without_rules_are_encoded_again(seed: int, prefix: bool) -> None:
    """A unigram model has no rules; its masks equal all texts, also at the start, behind the space of the tokenizer."""
    tokenizer = random_unigram(seed, prefix=prefix)
    begin = written(lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], "ab ", 6)
    with pytest.warns(UserWarning, match="canonical: the tokenizer's model Unigram has no rules"):
        call, step = bound("a b", random_model(tokenizer), tokenizer)
    row = tuple(call.prompts.tokens(0))
    row = row[1:] if row[0] == tokenizer.bos_token_id else row
    allowed = follow(step, call.prompts.ids, [])
    for token, token_bytes in enumerate(Vocabulary.of(tokenizer).token_bytes):
        if token_bytes and len(token_bytes) < 3:
            assert (token in allowed) == ((*row, token) in begin), (row, token)


MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "samples": {"do_sample": True, "num_return_sequences": 8, "top_k": 0, "temperature": 2.0},
    "beams": {"num_beams": 4, "num_return_sequences": 4},
    "assisted": {"assistant_model": foreign_model(3)},
    "lookup": {"prompt_lookup_num_tokens": 3},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_output_is_canonical(mode: str) -> None:
    """The tokens of prompt and text are those that the tokenizer writes, up to characters that are incomplete."""
    prompts = ["on the other, one"] if mode in ("assisted", "lookup") else ["on the", "the other one"]
    call, _ = bound(prompts)
    vocabulary = Vocabulary.of(foreign_tokenizer())
    torch.manual_seed(0)
    rows = call.generate(max_new_tokens=24, **{"do_sample": False, **MODES[mode]})
    for row in rows.tolist():
        tokens = [token for token in row if vocabulary.token_bytes[token] is not None]
        text = vocabulary.join(tokens).decode(errors="ignore")
        whole = foreign_tokenizer()(text, add_special_tokens=False)["input_ids"]
        assert tokens[: len(whole) - 1] == whole[:-1], text


def test_the_model_itself_leaves_the_encoding() -> None:
    """Without the step the same samples are not canonical, so the test above says something."""
    torch.manual_seed(0)
    call = logitkit.chain("temperature(2.0)").bind(foreign_model(), foreign_tokenizer(), "on the")
    row = call.generate(max_new_tokens=24, do_sample=True).tolist()[0]
    assert _restarts(bound("on the")[1], row)


def _restarts(step: Any, row: list[int]) -> bool:
    """Whether a row has a token that the tokenizer would not write there."""
    return canonical_prefix(step._rules, row).restarted


def test_prompts_that_are_not_canonical_are_judged_from_their_last_boundary() -> None:
    """Behind the tokens "t" "h" the context is "h" alone, and a notice says so; "the" has none."""
    t, h, the = ids_of("t", "h", "the")
    inputs = {"input_ids": torch.tensor([[t, h], [the, the]]), "attention_mask": torch.ones(2, 2, dtype=torch.long)}
    call, step = bound(BatchEncoding(inputs))
    assert [notice.split(";")[0] for notice in call.trace.notices] == [
        "canonical: the tokenizer would write prompt 0 in other tokens"
    ]
    alone, alone_step = bound("h")
    assert follow(step, call.prompts.ids[:1], []) == follow(alone_step, alone.prompts.ids, [])


def test_rows_behind_a_foreign_token_are_judged_from_there() -> None:
    """A closed gate, a draft or a beam of probability 0 may write "t" "h"; the row is judged like "h" from then on."""
    call, step = bound("e")
    t, h = ids_of("t", "h")
    assert follow(step, call.prompts.ids, [t, h]) == follow(bound("h")[1], bound("h")[0].prompts.ids, [])
    inside = foreign_tokenizer()("ж", add_special_tokens=False)["input_ids"][1]
    assert follow(step, call.prompts.ids, [inside])  # a token inside a character, behind none
    assert follow(step, call.prompts.ids, [299])  # a padding id of the model


def test_masks_follow_from_the_prefix() -> None:
    """Rows in any order, asked for twice, by a used, a fresh and a pickled step."""
    call, step = bound("on the")
    rows = call.generate(max_new_tokens=8, do_sample=True, num_return_sequences=6, top_k=0)
    lengths = [12, 8, 14, 9]
    used = [step.allowed(rows[:, :length].flip(0)).flip(0) for length in lengths]
    copied = pickle.loads(pickle.dumps(step))
    for length, want in zip(lengths, used, strict=True):
        assert torch.equal(bound("on the")[1].allowed(rows[:, :length]), want)
        assert torch.equal(copied.allowed(rows[:, :length]), want)


def test_the_trace_has_the_removed_mass() -> None:
    """By hand: of three tokens of equal probability behind "t", "h" is removed."""
    call, step = bound("t")
    e, h, o = ids_of("e", "h", "o")
    scores = torch.full((1, 300), -math.inf)
    scores[0, [e, h, o]] = 1.0
    masked = step(call.prompts.ids, scores)
    assert masked[0, [e, h, o]].tolist() == [1.0, -math.inf, 1.0]
    assert call.trace.means["canonical"]["removed mass"] == pytest.approx(1 / 3)
    call.trace.recording = True
    call.generate(max_new_tokens=9, do_sample=True, top_k=0)
    assert all(0 <= row.notes["removed_mass"] <= 1 for row in call.trace.steps)
    assert 0 < call.trace.interventions["canonical"]["removed mass"] < 1


def test_an_end_token_that_is_text() -> None:
    """Nothing follows the end, so "t" may end a text behind "e" only if the text with it is complete."""
    call, step = bound("e")
    t, first = ids_of("t", "Ã")
    call.settings_for(eos_token_id=[t, first])
    allowed = follow(step, call.prompts.ids, [])
    assert t in allowed and first not in allowed


def test_an_earlier_step_removed_every_token() -> None:
    """The error names the step and the order that helps."""
    call, step = bound("t")
    (h,) = ids_of("h")
    scores = torch.full((1, 300), -math.inf)
    scores[0, h] = 0.0
    with pytest.raises(ScoresError, match=r"canonical: row 0 must keep a token.*put canonical first"):
        step(call.prompts.ids, scores)


def test_with_byte_boundary_and_choices() -> None:
    """Cut prompts and lists of texts work with it."""
    texts = logitkit.generate(
        foreign_model(), foreign_tokenizer(), "on th", chain="byte_boundary() | canonical()", max_new_tokens=8
    )
    assert texts.texts[0] is not None
    chosen = logitkit.generate(
        foreign_model(),
        foreign_tokenizer(),
        "on",
        chain="canonical() | choices(options=[' the', ' other'])",
        max_new_tokens=6,
    )
    assert chosen.texts[0] in (" the", " other")


def test_encoder_decoder_models() -> None:
    """The rows of a decoder begin without the prompt."""
    model = encoder_decoder_model(foreign=True)
    call, _ = bound(["on the", "other"], model)
    row = call.generate(max_new_tokens=12, do_sample=True, top_k=0).tolist()[0][1:]
    assert not _restarts(call.composite.parts[0][1], [token for token in row if token > 2])


def test_tokenizers_that_change_texts_are_refused() -> None:
    """No tokens spell a text that the tokenizer changes."""
    tokenizer = random_tokenizer(0)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ModelError, match=r"canonical: tokenizer must keep every byte of a text, but .*leave canonical"):
        bound("a", random_model(tokenizer), tokenizer)


def test_a_tokenizer_of_single_bytes_forbids_incomplete_characters_alone() -> None:
    """Every text of bytes is canonical, so nothing but the UTF-8 of the text is required."""
    call, step = bound("a", tiny_model(), tiny_tokenizer())
    token_bytes = Vocabulary.of(tiny_tokenizer()).token_bytes
    got = {token_bytes[token] for token in follow(step, call.prompts.ids, [])}
    assert got == {None, *(bytes([byte]) for byte in (*range(128), *range(0xC2, 0xF5)))}


@pytest.mark.data
@pytest.mark.parametrize("name", ["gpt2", "mistral_v1"])
def test_real_tokenizers_equal_brute_force(shared_tokenizers: Path, name: str) -> None:
    """No wrong refusal and nothing wrongly allowed among random next tokens (studies/canonical_successors.py)."""
    text = "She'll pay 1,234  euros — 日本語 🎉é\n\n\tx = f(y) ½ 🦜 don't!\n" * 3
    result = compared(str(shared_tokenizers / name), [text], count=150, seed=1, per_prefix=12)
    assert result["wrong refusals"] == result["wrongly allowed"] == 0, result
    assert result["allowed"] < result["successors"]
