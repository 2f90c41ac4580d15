"""Retokenization: a worked example, slow references, one forward for all splits, and what is refused."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import logitkit
from logitkit.errors import ModeError, NoEffectWarning, ParameterError
from logitkit.processors.canonical import Retokenize, TokenSplits, averaged
from logitkit.processors.engine import Binding, read_prompts
from logitkit.processors.tokens import Vocabulary
from logitkit.registry.laws import check_processor, foreign_model, foreign_tokenizer
from logitkit.registry.laws.tiny_architectures import ARCHITECTURES
from reference.fixed_streams import logits_with_ties

IDS = torch.zeros(4, 2, dtype=torch.long)
CHAIN = "retokenize(k=4, share=0.5)"
PROMPTS = ["the other one, then another the", "in the roe on an other theatre"]


def call_of(chain: str = CHAIN, prompts: Any = PROMPTS, model: Any = None, **more: Any) -> Any:
    """Return a chain bound to the foreign model, whose tokenizer has tokens of several bytes."""
    return logitkit.chain(chain).bind(model or foreign_model(), foreign_tokenizer(), prompts, **more)


def test_by_hand() -> None:
    """The mean of (.6, .4) and (.2, .8) is (.4, .6); entropies .6730, .5004 and .6730 nats: (.6730 - .5867) / ln 2."""
    mean, bits = averaged(*(torch.tensor([row]).log() for row in ([0.6, 0.4], [0.2, 0.8])))
    torch.testing.assert_close(mean.exp(), torch.tensor([[0.4, 0.6]]))
    assert bits.tolist() == pytest.approx([0.12451], abs=1e-5)


def test_impossible_tokens_stay_impossible_by_hand() -> None:
    """(.5, .5, 0) and (.2, .3, .5): the mean is (.35, .4, .25), of which (.35, .4) / .75 is left."""
    first, second = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.2, 0.3, 0.5]]).log()
    torch.testing.assert_close(averaged(first, second)[0].exp(), torch.tensor([[0.35, 0.4, 0.0]]) / 0.75)


def test_bounds_of_the_divergence() -> None:
    """Equal distributions: 0. Three without a common token: log2 3, though two of their tokens are left out."""
    rows = [torch.full((1, 3), -torch.inf).index_fill(1, torch.tensor([token]), 0.0) for token in range(3)]
    assert averaged(rows[0], rows[0])[1].tolist() == [0.0]
    mean, bits = averaged(*rows)
    assert bits.tolist() == pytest.approx([math.log2(3)]) and mean.exp().tolist() == [[1.0, 0.0, 0.0]]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 4), scale=st.sampled_from([1.0, 10.0]))
def test_it_equals_its_slow_reference(seed: int, count: int, scale: float) -> None:
    """Random rows with ties and impossible tokens, and tokens whose probability underflows in fp32."""
    rows = [scale * logits_with_ties(seed + number) for number in range(count)]
    mean, bits = averaged(*rows)
    for row in range(4):
        p = [torch.tensor(each[row].tolist(), dtype=torch.float64).softmax(0).tolist() for each in rows]
        middle = [sum(each) / count for each in zip(*p, strict=True)]
        kept = [m if first > 0 else 0.0 for m, first in zip(middle, p[0], strict=True)]
        want = [math.log(m / sum(kept)) if m else -math.inf for m in kept]
        torch.testing.assert_close(mean[row], torch.tensor(want), rtol=1e-4, atol=1e-4)
        js = sum(a * math.log2(a / m) for each in p for a, m in zip(each, middle, strict=True) if a) / count
        assert float(bits[row]) == pytest.approx(js, abs=1e-4)


def recomputed(call: Any, k: int, share: float, tail: list[int], prompt: int) -> Tensor:
    """Return the mean of k forwards in float64, each over a prompt in other tokens and the same continuation."""
    model = copy.deepcopy(foreign_model()).double()
    splits, own = TokenSplits(Vocabulary.of(foreign_tokenizer(), 300)), call.prompts.tokens(prompt)
    encodings = [own, *(splits.resplit(own, share=share, number=number) for number in range(1, k))]
    with torch.no_grad():
        rows = [model(torch.tensor([ids + tail])).logits[0, -1].softmax(-1) for ids in encodings]
    return torch.stack(rows).mean(0)


@pytest.mark.parametrize("streams", ["fused", "lazy"])
def test_generation_equals_separate_forwards(streams: Any) -> None:
    """A padded batch, greedy: each step's distribution is the mean of four recomputations in float64."""
    call = call_of()
    out = call.generate(
        streams=streams, max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_scores=True
    )
    assert call.prompts.padded
    for row in range(2):
        tail = out.sequences[row, call.prompts.width :].tolist()
        for step, scores in enumerate(out.scores):
            want = recomputed(call, 4, 0.5, tail[:step], row)
            torch.testing.assert_close(scores[row].double().softmax(-1), want, rtol=1e-3, atol=1e-6)


def test_all_splits_are_read_in_one_forward() -> None:
    """The forward of the generating model computes the four rows of each prompt; no reader runs by itself."""
    call = call_of()
    call.generate(max_new_tokens=5, do_sample=False)
    assert (call.trace.fusion.state, call.trace.fusion.rows_per_row) == ("fused", 4)
    assert set(call.trace.forwards.values()) == {0} and len(call.trace.forwards) == 3


def test_one_encoding_is_the_model_itself() -> None:
    """With k=1 the scores are returned as they are, nothing is read, and images pass."""
    call, scores = call_of("retokenize(k=1)"), logits_with_ties(0)
    step = call.composite.parts[0][1]
    assert step(IDS, scores) is scores and step.streams == () and not call.trace.readers


def test_a_larger_k_adds_splits() -> None:
    """The readers of k=3 are the first ones of k=4, and another seed has others."""
    texts = [
        [reader.own for reader in call_of(f"retokenize(k={k}, seed={seed}, share=0.5)").trace.readers.values()]
        for k, seed in ((3, 0), (4, 0), (3, 1))
    ]
    assert texts[0] == texts[1][:2] and texts[0] != texts[2]


def test_a_prompt_that_no_split_changes_keeps_its_distribution() -> None:
    """Beside another prompt as alone, ``zzz`` has the scores of the steps before; a notice names it."""
    call = call_of(prompts=[PROMPTS[0], "zzz"])
    scores = torch.randn(2, 300, generator=torch.Generator().manual_seed(0))
    got = call.composite.parts[0][1](call.prompts.ids, scores)
    torch.testing.assert_close(got[1], scores[1].log_softmax(-1))
    assert not torch.allclose(got[0], scores[0].log_softmax(-1), atol=1e-3)
    assert call.trace.notices == ["retokenize: every split leaves prompt 1 in its own tokens"]
    with pytest.warns(NoEffectWarning, match="retokenize changes nothing: no drawn token of the prompt is two tokens"):
        alone = call_of(prompts="zzz")
    assert alone.composite.parts[0][1](alone.prompts.ids, scores[1:]) is not None and not alone.trace.readers


def test_splits_that_leave_every_prompt_count_as_the_prompt_itself() -> None:
    """By hand: two splits, of which one leaves the prompt: (2 p + q) / 3."""
    p, q = torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.0, 1.0]]).log()
    got = Retokenize(splits=[None, lambda rows: q])(IDS[:1], p)
    torch.testing.assert_close(got.exp(), torch.tensor([[0.4, 0.6]]))


def test_chats_keep_their_special_tokens() -> None:
    tokenizer = copy.deepcopy(foreign_tokenizer())
    tokenizer.chat_template = "{% for m in messages %}<begin>{{ m.content }}<end>{% endfor %}<begin>"
    chat = [{"role": "user", "content": "the other one in an on"}]
    call = logitkit.chain("retokenize(k=3, share=1.0)").bind(foreign_model(), tokenizer, [chat])
    for reader in call.trace.readers.values():
        assert tokenizer.decode(reader.own[0]) == tokenizer.decode(call.prompts.ids[0])
        assert [token for token in reader.own[0] if token < 3] == [1, 2, 1]


def test_the_trace_has_the_divergence() -> None:
    """The note of each step is in the view of `inspect`, and the mean is that of the notes."""
    got = logitkit.generate(
        foreign_model(), foreign_tokenizer(), PROMPTS, chain=CHAIN, trace=True, max_new_tokens=4, do_sample=False
    ).trace
    notes = [float(step.notes["split_js_bits"]) for step in got.steps if step.processor == "retokenize"]
    assert len(notes) == 8 and all(0 < bits <= 2 for bits in notes)
    assert got.means["retokenize"]["split divergence"] == pytest.approx(sum(notes) / 8, rel=1e-5)


def test_images_and_wrong_parameters_are_refused() -> None:
    llava = ARCHITECTURES["llava"].model(0, foreign_tokenizer())
    prompts = read_prompts(foreign_tokenizer(), foreign_model(), PROMPTS)
    ids = {"input_ids": prompts.ids, "attention_mask": prompts.mask, "pixel_values": torch.ones(2, 3, 8, 8)}
    with pytest.raises(ModeError, match="got also pixel_values, which the chain cannot hand to 'retokenize'"):
        call_of(prompts=ids, model=llava)
    for chain, rule in (
        ("k=0", "k must be a whole number >= 1 and <= 256"),
        ("k=257", "k must be"),
        ("share=0.0", "share must be"),
        ("seed=-1", "seed"),
    ):
        with pytest.raises(ParameterError, match=f"retokenize: {rule}"):
            logitkit.chain(f"retokenize({chain})")


def test_the_laws_hold_where_prompts_are_split() -> None:
    """The tiny tokenizer has tokens of one byte alone, so the laws of the Spec read no stream; these read two."""

    def factory(model: Any, tokenizer: Any, inputs: dict[str, Tensor]) -> Retokenize:
        binding = Binding(model, tokenizer, read_prompts(tokenizer, model, inputs))
        own = binding.own_prompts()
        others = [[ids[1:] for ids in own], [ids * 2 for ids in own]]
        return Retokenize(splits=[binding.reader(each) for each in others])

    assert check_processor(factory).failures == []
