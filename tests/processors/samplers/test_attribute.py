"""Tokens are shifted by what they change in the log-probability of an attribute."""

from __future__ import annotations

import itertools
import math
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretend_device import Pretended, model_on_device
from tests.processors.samplers.attribute_calls import END, A, B, C, bound, classifier, following
from tests.processors.samplers.attribute_folds import Avoids, Contains, Length, Varied

import logitkit
from logitkit.errors import ModeError, ModelError, ParameterError, ScoresError, UnknownNameError
from logitkit.processors.engine import Binding, read_prompts
from logitkit.processors.samplers.attribute import AttributeStep, likeliest
from logitkit.processors.samplers.attributes import LEAST
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import WIDTH, encoder_decoder_model

FEW = f"suppress_tokens({[token for token in range(WIDTH) if token not in (END, A, B, C)]})"  # four tokens are left


def test_by_hand() -> None:
    """Behind "ca", a "t" completes the text: no byte is missing instead of one, +1 nat. With an "x" three are, -2."""
    call = bound("attribute({'contains': ['cat']}, strength=0.5, top=3)")
    t, x, c = (tiny_tokenizer().convert_tokens_to_ids(letter) for letter in "txc")
    scores = torch.full((1, WIDTH), -torch.inf)
    scores[0, [t, x, c, END]] = torch.tensor([0.2, 0.5, 0.2, 0.1]).log()
    got = call.composite(following(call, "ca"), scores)[0]
    want = torch.tensor([0.2, 0.5, 0.2]).log() + 0.5 * torch.tensor([1.0, -2.0, -1.0])  # a new "c": two are missing
    torch.testing.assert_close(got[[t, x, c]], want)
    assert int((got > -torch.inf).sum()) == 3  # the end token is not among the top 3
    assert call.composite(following(call, "ca"), scores.roll(1, 1)).shape == scores.shape


def test_ends_by_hand() -> None:
    """Where a text is missing, ending costs 10,000 nats less what is missing; where none is, nothing."""
    call = bound("attribute({'contains': ['a']})")
    scores = torch.zeros(1, WIDTH)
    kept = call.composite(following(call), scores)[0] > -torch.inf
    assert kept.nonzero()[:, 0].tolist() == list(range(20))  # of equal tokens, the first ones
    scores[0, END] = 1.0
    shift = call.composite(following(call), scores)[0, END] - scores.log_softmax(-1)[0, END]
    assert math.isclose(float(shift), LEAST + 1, rel_tol=1e-6)
    shift = call.composite(following(call, "xa"), scores)[0, END] - scores.log_softmax(-1)[0, END]
    assert abs(float(shift)) < 1e-6


def probability(attributes: list[Any], tokens: list[int], ends: bool) -> float:
    """log P(attribute | tokens), read from the beginning."""
    total = 0.0
    for each in attributes:
        state = each.initial(b"")
        for token in tokens:
            state = each.advance(state, token)
        total += each.value(state, ends)
    return max(total, LEAST)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([A, B, C]), max_size=7), st.integers(0, 2**16))
def test_the_differences_are_those_of_a_reading_from_the_beginning(tokens: list[int], seed: int) -> None:
    """Also for tokens that end the row; the tokens outside the top are impossible."""
    call = bound("attribute({'length': 4, 'spread': 1.5, 'varied': 2, 'contains': ['aab'], 'avoids': ['cc']}, top=4)")
    token_bytes = [bytes([97 + token - A]) if token in (A, B, C) else b"" for token in range(WIDTH)]
    attributes = [Length(4, 1.5), Varied(2), Contains(["aab"], token_bytes), Avoids(["cc"], token_bytes)]
    scores = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(seed))
    scores[0, [END, A, B, C]] += 20
    rows = torch.cat([call.prompts.ids, torch.tensor([tokens], dtype=torch.long)], dim=1)
    got, logp = call.composite(rows, scores)[0], scores.log_softmax(-1)[0]
    before = probability(attributes, tokens, ends=False)
    for token in (END, A, B, C):
        longer = tokens if token == END else [*tokens, token]
        want = float(logp[token]) + probability(attributes, longer, token == END) - before
        assert math.isclose(float(got[token]), want, rel_tol=1e-4, abs_tol=1e-4)
    assert int((got > -torch.inf).sum()) == 4


def law(model: Any, prompt: torch.Tensor, length: int) -> dict[tuple[int, ...], float]:
    """log p of every sequence of the few tokens that ends, or has this length."""
    found, open_rows = {}, {(): 0.0}
    for _ in range(length):
        longer: dict[tuple[int, ...], float] = {}
        for row, total in open_rows.items():
            with torch.no_grad():
                logits = model(torch.cat([prompt[0], torch.tensor(row, dtype=torch.long)])[None]).logits[0, -1]
            logp = logits[[END, A, B, C]].double().log_softmax(-1).tolist()
            found[(*row, END)] = total + logp[0]
            longer |= {(*row, token): total + value for token, value in zip((A, B, C), logp[1:], strict=True)}
        open_rows = longer
    return found | open_rows


def last_letters(rows: torch.Tensor) -> torch.Tensor:
    """A function of rows: how much of the row is "b", as nats."""
    return -0.7 * (rows != B).sum(-1)


ATTRIBUTES: dict[str, Any] = {
    "{'length': 2, 'spread': 0.5, 'avoids': ['b']}": lambda spelled: [Length(2, 0.5), Avoids(["b"], spelled)],
    "{'contains': ['ca', 'ab']}": lambda spelled: [Contains(["ca", "ab"], spelled)],
    "{'varied': 1}": lambda spelled: [Varied(1)],
    "'kind'": last_letters,
    "{'model': 'kind', 'label': 1}": lambda rows: classifier(3)(rows).logits.log_softmax(-1)[:, 1],
}


@pytest.mark.parametrize("scorer", ATTRIBUTES)
@pytest.mark.parametrize("search", ["", " | beams(width=64)"])
def test_beams_find_the_enumerated_maximum(scorer: str, search: str) -> None:
    """With more beams than sequences, conditional beam search maximises log p(x) + strength log P(a | x)."""
    chain = f"{FEW} | attribute({scorer}, strength=3.0, top=4){search}"
    token_bytes = [bytes([97 + token - A]) if token in (A, B, C) else b"" for token in range(WIDTH)]
    named = {"kind": classifier(3) if "label" in scorer else last_letters} if "kind" in scorer else {}
    settings = {} if search else {"num_beams": 64, "length_penalty": 0.0}
    changed = 0
    for prompt in ("a prompt", "another", "of text"):
        call = bound(chain, prompt, **named)
        out = call.generate(max_new_tokens=3, do_sample=False, **settings)[0]
        got = tuple(token for token in out[call.prompts.width :].tolist() if token != 258)
        values, joint = {}, law(tiny_model(), call.prompts.ids, 3)
        for row, logp in joint.items():
            if named:
                with torch.no_grad():
                    value = float(ATTRIBUTES[scorer](torch.tensor([[*call.prompts.tokens(0), *row]])))
            else:
                tokens = [token for token in row if token != END]
                value = probability(ATTRIBUTES[scorer](token_bytes), tokens, row[-1] == END)
            values[row] = logp + 3.0 * value
        assert got == max(values, key=values.__getitem__)
        changed += got != max(joint, key=joint.__getitem__)
    assert changed


def test_sampling_with_the_exact_probability_has_the_conditional_law() -> None:
    """With log P(a | prefix) of the model itself, the tokens' law is that of the model given the attribute."""
    call = bound(FEW)
    joint = law(tiny_model(), call.prompts.ids, 3)
    good = {row: logp for row, logp in joint.items() if row.count(A) == 1}  # the attribute: exactly one "a"

    def scorer(rows: torch.Tensor) -> list[float]:
        values = []
        for row in rows[:, call.prompts.width :].tolist():
            size, prefix = len(row), tuple(row)
            every = [logp for other, logp in joint.items() if other[:size] == prefix]
            kept = [logp for other, logp in good.items() if other[:size] == prefix]
            values.append(math.log(sum(map(math.exp, kept)) / sum(map(math.exp, every))) if kept else -math.inf)
        return values

    steps = bound(f"{FEW} | attribute('exact', top=4)", exact=scorer)
    total = math.log(sum(map(math.exp, good.values())))
    for row in itertools.islice(good, 0, None, 3):
        logp = 0.0
        for place, token in enumerate(row):
            rows = torch.cat([call.prompts.ids, torch.tensor([row[:place]], dtype=torch.long)], dim=1)
            with torch.no_grad():
                logp += float(steps.composite(rows, tiny_model()(rows).logits[:, -1]).log_softmax(-1)[0, token])
        assert math.isclose(logp, good[row] - total, abs_tol=2e-4)


def test_a_scorer_is_asked_about_new_rows_alone() -> None:
    """Twenty candidates a row and the prompt at the first step; the values of chosen tokens are known at the next."""
    counts = []

    def scorer(rows: torch.Tensor) -> torch.Tensor:
        counts.append(tuple(rows.shape))
        return -rows[:, -1] / 100

    call = bound("attribute('kind')", ["a prompt", "another one"], kind=scorer)
    call.generate(max_new_tokens=2, do_sample=False)
    width = call.prompts.width
    assert counts == [(2, width), (40, width + 1), (40, width + 2)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "shape", "none"])
def test_a_wrong_answer_of_a_scorer_is_one_error(value: Any) -> None:
    def scorer(rows: torch.Tensor) -> Any:
        if value == "none":
            return None
        return torch.zeros(len(rows), 2) if value == "shape" else torch.full((len(rows),), value)

    with pytest.raises(ScoresError, match=r"attribute: scorer 'kind' must return one number a row, nats, \[1\]"):
        logitkit.generate(
            tiny_model(), tiny_tokenizer(), "a", "attribute('kind')", resources={"kind": scorer}, max_new_tokens=2
        )


def test_a_row_without_the_attribute_keeps_its_tokens() -> None:
    """Of a scorer that says -inf of everything, nothing is left: neither an error nor NaN."""
    out = logitkit.generate(
        tiny_model(),
        tiny_tokenizer(),
        "a",
        "attribute('none')",
        resources={"none": lambda rows: torch.full((len(rows),), -torch.inf)},
        max_new_tokens=4,
        do_sample=False,
    )
    plain = logitkit.generate(tiny_model(), tiny_tokenizer(), "a", max_new_tokens=4, do_sample=False)
    assert out.texts == plain.texts


def test_refused_scorers() -> None:
    for text, error, words in (
        ("attribute({})", ParameterError, "a mapping with an attribute"),
        ("attribute({'spread': 2.0})", ParameterError, "beside 'length'"),
        ("attribute({'lenght': 3})", UnknownNameError, "length"),
        ("attribute({'length': 2.5})", ParameterError, "whole number >= 0"),
        ("attribute({'varied': 0})", ParameterError, "whole number >= 1"),
        ("attribute({'length': 2, 'spread': 0})", ParameterError, "number > 0"),
        ("attribute({'contains': 'cat'})", ParameterError, "list of texts"),
        ("attribute({'avoids': ['']})", ParameterError, "none empty"),
        ("attribute('kind')", UnknownNameError, "kind"),
        ("attribute({'model': 3})", ParameterError, "the name of an object"),
    ):
        with pytest.raises(error, match=words):
            bound(text)
    with pytest.raises(ParameterError, match="kind 0, kind 1"):
        bound("attribute('kind')", kind=classifier(2))
    with pytest.raises(ParameterError, match="kind 0, kind 1"):
        bound("attribute({'model': 'kind', 'label': 'kind 7'})", kind=classifier(2))
    with pytest.raises(ParameterError, match="left out"):
        bound("attribute({'model': 'kind', 'label': 0})", kind=classifier(1))
    with pytest.raises(ParameterError, match="left out"):
        bound("attribute({'model': 'kind', 'label': 0})", kind=len)
    with pytest.raises(ModelError, match="padding token"):
        bound("attribute('kind')", kind=classifier(1, pad=None))
    with pytest.raises(ModelError, match="pass its tokenizer"):
        bound("attribute('kind')", kind=classifier(1, width=300))
    with pytest.raises(ModelError, match="function of rows"):
        bound("attribute('kind')", kind=tiny_model(1))


def test_last_under_beams() -> None:
    """Its scores add up under beams, so another step may not follow there; elsewhere it may."""
    call = bound("attribute({'length': 3}) | top_p(0.9)")
    with pytest.raises(ModeError, match=r"must be the last step under beams.*write top_p\(\.\.\.\) \| attribute"):
        call.generate(num_beams=2, max_new_tokens=2)
    with pytest.raises(ModeError, match="must be the last step under beams"):
        call.settings_for(num_beams=2)
    call.generate(max_new_tokens=2, do_sample=True)
    bound("top_p(0.9) | attribute({'length': 3})").generate(num_beams=2, max_new_tokens=2)


def test_beside_padding_encoders_and_pickles() -> None:
    """Rows of unequal prompts, a T5, and a pickled copy."""
    chain = "attribute({'contains': ['the'], 'length': 6}, strength=2.0, top=272)"
    texts = logitkit.generate(
        tiny_model(), tiny_tokenizer(), ["ab", "a longer prompt"], chain=chain, do_sample=False, max_new_tokens=9
    ).texts
    alone = logitkit.generate(tiny_model(), tiny_tokenizer(), "ab", chain=chain, do_sample=False, max_new_tokens=9)
    assert texts[0] == alone.texts[0]
    other = logitkit.generate(
        encoder_decoder_model(),
        tiny_tokenizer(),
        "ab",
        chain=chain.replace("2.0", "20.0"),
        do_sample=False,
        max_new_tokens=9,
    )
    assert "the" in other.texts[0]
    call = bound(chain)
    step = call.composite.parts[0][1]
    rows, scores = following(call, "th"), torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pickle.loads(pickle.dumps(step))(rows, scores), step(rows, scores))


def test_rows_that_are_permuted_shortened_and_replaced() -> None:
    """The answer is a function of the rows, whatever the step was asked about before."""
    chain = "attribute({'contains': ['ab', 'cc'], 'avoids': ['ba'], 'length': 5, 'varied': 2}, strength=0.5, top=60)"
    used, generator = bound(chain, ["a prompt", "ab"]), torch.Generator().manual_seed(2)
    letters = torch.tensor([A, B, C, END])
    rows = following(used).repeat_interleave(2, 0)
    for turn in range(12):
        tokens = letters[torch.randint(0, 3 if turn < 9 else 4, (4, 1), generator=generator)]
        rows = torch.cat([rows, tokens], dim=1)
        if turn % 4 == 1:
            rows = rows[[1, 0, 3, 3]]
        if turn % 4 == 3:
            rows = rows[:, :-2]
        scores = torch.randn(4, WIDTH, generator=generator)
        want = bound(chain, ["a prompt", "ab"]).composite(rows, scores)
        torch.testing.assert_close(used.composite(rows, scores), want, rtol=0, atol=0)


def test_a_continuation_that_spells_the_end_of_a_cut_prompt() -> None:
    """Bytes of the prompt that the row spells again are not searched: "ca" of the prompt does not begin "cat"."""
    prompts = replace(read_prompts(tiny_tokenizer(), tiny_model(), ["xx", "yy"]), removed=(b"ca", b""))
    token_bytes = [bytes([97 + token - A]) if A <= token < A + 26 else b"" for token in range(WIDTH)]
    contains = Contains(["cat"], token_bytes)
    binding = Binding(tiny_model(), tiny_tokenizer(), prompts)
    step = AttributeStep.bind(binding, scorer={"contains": ["cat"]}, strength=1.0, top=WIDTH)
    c, a, t = (tiny_tokenizer().convert_tokens_to_ids(letter) for letter in "cat")
    for tail in ([], [c], [c, a], [c, a, c], [c, a, c, a]):
        rows = torch.cat([prompts.ids, torch.tensor([tail, tail], dtype=torch.long)], dim=1)
        got = step(rows, torch.zeros(2, WIDTH)) + math.log(WIDTH)
        for number, removed in enumerate((b"ca", b"")):
            state = contains.initial(removed)
            for token in tail:
                state = contains.advance(state, token)
            want = contains.value(contains.advance(state, t), False) - contains.value(state, False)
            assert math.isclose(float(got[number, t]), want, abs_tol=1e-4), (tail, removed)


def test_likeliest_tokens_are_those_of_a_stable_sort() -> None:
    """Also where scores are equal, or no other token is possible."""
    generator = torch.Generator().manual_seed(0)
    for count in (1, 5, 9, 12):
        logp = torch.randint(0, 4, (30, 12), generator=generator).float()
        logp[torch.rand(30, 12, generator=generator) < 0.3] = -torch.inf
        want = torch.sort(logp, dim=-1, descending=True, stable=True).indices[:, :count]
        assert torch.equal(likeliest(logp, count), want)


@pytest.mark.parametrize("scorer", ["{'contains': ['the'], 'varied': 2}", "'kind'", "{'model': 'kind', 'label': 1}"])
def test_the_host_waits_at_most_once_a_step(scorer: str) -> None:
    """Counted on a pretended device: folds wait never, scorers of whole rows once, for the rows that are alive."""
    with Pretended() as device, torch.no_grad():
        model = model_on_device(tiny_model(), device)
        chain = logitkit.chain(f"attribute({scorer}, top=5)")
        kind = model_on_device(classifier(3), device) if "label" in scorer else lambda rows: -rows[:, -1] / 100
        named = {"kind": kind} if "kind" in scorer else {}
        call, counts = chain.bind(model, tiny_tokenizer(), ["a prompt", "another one"], **named), []
        for tokens in (5, 9):
            device.waits.clear()
            call.generate(streams="lazy", max_new_tokens=tokens, do_sample=False, eos_token_id=None)
            counts.append(sum(device.waits.values()))
            device.waits.clear()
            model.generate(**call.inputs, max_new_tokens=tokens, do_sample=False, eos_token_id=None)
            counts[-1] -= sum(device.waits.values())
    assert (counts[1] - counts[0]) / 4 <= 1 + ("kind" in scorer)  # one for the check of the scores, as in every chain
