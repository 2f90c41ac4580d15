"""Drafts of an assistant under a chain: the text of the chain, with its second streams in the checking forward."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList

import logitkit
from fakes import absolute_model, sliding_model
from fusing import decode
from logitkit.processors.engine import forward_plan, separate_prefill
from logitkit.processors.engine.drafts import Drafts
from logitkit.processors.engine.separate_prefill import join
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.agreement import ScoreRecorder, StreamRecorder
from logitkit.registry.laws.tiny_models import foreign_model, foreign_tokenizer

CAUSAL = {"rotary": tiny_model, "absolute": absolute_model, "sliding": sliding_model}
CHAINS = [
    "cfg(2.0, negative='a negative prompt that is longer than the prompt')",
    "cad(0.5, context='r')",
    "uscd(gate=0.5, lame='lame')",
    "cfg(1.5) | uscd(gate=1.0, lame='lame') | temperature(0.7) | top_p(0.9)",
]
PROMPT = "a rather short prompt"


def bound(chain: str, model: Any = None, **resources: Any) -> Any:
    """Return a chain bound to one prompt."""
    return logitkit.chain(chain).bind(model or tiny_model(), tiny_tokenizer(), PROMPT, **resources)


def noisy(model: Any, noise: float = 0.02) -> Any:
    """Return a copy of a model with noise on its weights: some of its drafts are right."""
    assistant, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in assistant.parameters():
            weights += noise * torch.randn(weights.shape, generator=generator)
    return assistant


def counted(model: Any, counts: Counter[str]) -> Any:
    """Return a hook that counts the forwards of a model."""
    return model.register_forward_hook(lambda *_: counts.update(["forwards"]))


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("kind", CAUSAL)
def test_an_assistant_changes_no_greedy_token(kind: str, chain: str) -> None:
    """Right and wrong drafts, schedules and early exit write the text of the chain alone, with fused streams."""
    model = copy.deepcopy(CAUSAL[kind]())
    want = decode(bound(chain, model), "lazy")
    schedules = {"constant": 3, "heuristic": 5}
    for assistant in (noisy(model), CAUSAL[kind](1)):
        for schedule, count in schedules.items():
            mine = copy.deepcopy(assistant)
            mine.generation_config.update(num_assistant_tokens=count, num_assistant_tokens_schedule=schedule)
            call = bound(chain, model)
            assert torch.equal(decode(call, "fused", assistant_model=mine), want)
            assert call.trace.fusion.state == "fused" and set(call.trace.forwards.values()) == {0}
    if kind == "absolute":  # the forward of a GPT-2 runs all layers whatever its configuration says
        return
    call = bound(chain, model)
    assert torch.equal(decode(call, "fused", assistant_early_exit=1), want)
    assert call.trace.fusion.state == "fused" and set(call.trace.forwards.values()) == {0}
    assert model.config.num_hidden_layers == CAUSAL[kind]().config.num_hidden_layers


def test_one_forward_checks_all_drafts_under_both_prompts() -> None:
    """By hand: an assistant that is the model, under a chain that changes nothing greedy, is right at every token.

    Of 12 tokens each round writes four drafts and one more: 5, 5 and 2 of them in three forwards.
    """
    model, counts = copy.deepcopy(tiny_model()), Counter[str]()
    assistant = copy.deepcopy(model)
    drafts = {"num_assistant_tokens": 4, "num_assistant_tokens_schedule": "constant"}
    assistant.generation_config.update(**drafts, assistant_confidence_threshold=0.0)
    call = bound("cfg(1.0001)", model)
    want = decode(call, "fused")
    hook = counted(model, counts)
    assert torch.equal(decode(call, "fused", assistant_model=assistant), want)
    hook.remove()
    assert counts["forwards"] == 3 and call.trace.calls == 12 + 5 + 5 + 2  # of the run before and of the three chunks
    said = "each forward computes 2 rows for each row of generate; drafts leave out cfg"
    assert str(call.trace.fusion) == f"fused: {said}"


@pytest.mark.parametrize("gate", [0.5, 0.9])
def test_gates_under_an_assistant_change_how_streams_are_read_and_no_token(gate: float) -> None:
    """A gated stream joins the checking forwards, or leaves them, while drafts are rejected."""
    chain, tokens = f"uscd(gate={gate}, lame='lame')", {"max_new_tokens": 80}
    call, expected = bound(chain), decode(bound(chain), "lazy", **tokens)
    assert torch.equal(decode(call, "auto", assistant_model=noisy(tiny_model()), **tokens), expected)
    assert "gates opened" in call.trace.fusion.reason or "requested at" in call.trace.fusion.reason


@settings(max_examples=12, deadline=None)
@given(
    noise=st.sampled_from([0.0, 0.01, 0.05]),
    scale=st.sampled_from([0.5, 1.5, 3.0]),
    count=st.integers(1, 6),
    tokens=st.integers(1, 9),
    negative=st.text("ab ", min_size=1, max_size=30),
    rest=st.sampled_from(["", " | uscd(gate=0.7, lame='lame')", " | mti(gate={'measure': 'entropy', 'above': 1.0})"]),
)
def test_drafts_of_any_length_and_quality(
    noise: float, scale: float, count: int, tokens: int, negative: str, rest: str
) -> None:
    """Whatever is drafted, and however long the second prompt is, the text is that of the chain read lazily."""
    assistant = noisy(tiny_model(), noise)
    assistant.generation_config.update(num_assistant_tokens=count)
    chain = f"cfg({scale}, negative={negative!r}){rest}"
    want = decode(bound(chain), "lazy", max_new_tokens=tokens)
    assert torch.equal(decode(bound(chain), "auto", max_new_tokens=tokens, assistant_model=assistant), want)


@pytest.mark.parametrize("drafts", [{"assistant_model": 1}, {"prompt_lookup_num_tokens": 3}])
@pytest.mark.parametrize("kind", CAUSAL)
def test_a_long_prompt_and_a_short_one_are_read_apart_with_the_first_drafts(
    kind: str, drafts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first forward checks drafts too; the caches that are joined hold them, and rejected ones leave again."""
    joined = Counter[str]()
    monkeypatch.setattr(forward_plan, "join", lambda *given: (joined.update(["caches"]), join(*given)))
    monkeypatch.setattr(separate_prefill, "LEAST_SHARE", 0.0)
    model, prompt = CAUSAL[kind](), "the sea, the old sea, " * 5
    given = {"assistant_model": noisy(model)} if "assistant_model" in drafts else drafts
    want, call = (logitkit.chain("cfg(2.0)").bind(model, tiny_tokenizer(), prompt) for _ in range(2))
    expected = decode(want, "lazy")
    assert torch.equal(decode(call, "fused", **given), expected) and joined["caches"] == 1


def test_the_outputs_are_those_of_transformers() -> None:
    """Scores, logits, streamed tokens and stopping are those of decoding without an assistant."""
    chain, settings = CHAINS[0], {"output_scores": True, "output_logits": True, "return_dict_in_generate": True}
    plain, call = bound(chain), bound(chain)
    ends = {"eos_token_id": int(decode(bound(chain), "lazy")[0, -3])}
    want, streamer = decode(plain, "lazy", **settings, **ends), StreamRecorder()
    got = decode(call, "auto", **settings, **ends, assistant_model=noisy(tiny_model()), streamer=streamer)
    assert torch.equal(got.sequences, want.sequences)
    assert torch.equal(torch.cat(streamer.pieces), got.sequences[0])
    for name in ("scores", "logits"):
        torch.testing.assert_close(torch.cat(got[name]), torch.cat(want[name]), rtol=1e-4, atol=1e-4)


def test_sampled_tokens_follow_the_law_of_the_chain() -> None:
    """Of two possible tokens, sampling with an assistant writes the likelier one as often as the chain states.

    Behind a known prefix the number of likelier tokens less its expectation is a martingale. Over its standard
    deviation it exceeds 4 with probability 6e-5 for a right sampler; the seed is fixed.
    """
    call, recorder = bound("cfg(2.0, negative='a fish') | temperature(0.5) | top_k(2)"), ScoreRecorder()
    assistant = noisy(tiny_model(), 0.05)
    assistant.generation_config.update(num_assistant_tokens=3, assistant_confidence_threshold=0.0)
    excess = variance = 0.0
    torch.manual_seed(0)
    for _ in range(8):
        recorder.seen.clear()
        further = LogitsProcessorList([recorder])
        (ids,) = call.generate(assistant_model=assistant, do_sample=True, max_new_tokens=32, logits_processor=further)
        laws = {tuple(row.tolist()): scores.softmax(-1)[0] for (row,), scores in recorder.seen if len(row) < len(ids)}
        for end in range(call.prompts.width, len(ids)):
            law = laws[tuple(ids[:end].tolist())]
            assert law[ids[end]] > 0
            excess += float((ids[end] == law.argmax()).float() - law.max())
            variance += float(law.max() * (1 - law.max()))
    assert variance > 25 and abs(excess) < 4 * variance**0.5


def test_another_models_stream_is_read_in_chunks() -> None:
    """A stream of another model is asked once for the drafts of a round, and not while they are drafted."""
    chain, weak = "contrastive('weak', alpha=0.1) | cfg(1.5)", tiny_model(2)
    plain = bound(chain, weak=weak)
    want = decode(plain, "auto")
    call = bound(chain, weak=weak)
    assistant, counts = noisy(tiny_model()), Counter[str]()
    hook = counted(assistant, counts)
    assert torch.equal(decode(call, "auto", assistant_model=assistant), want)
    hook.remove()
    rounds = call.trace.calls - (want.shape[1] - call.prompts.width)
    assert call.trace.forwards["weak"] < plain.trace.forwards["weak"] == 12 and rounds
    assert call.trace.fusion.reason.endswith("drafts leave out contrastive and cfg")


def test_steps_without_streams_stay_in_the_drafts() -> None:
    """Drafts obey the constraints of the chain: a banned token is never drafted."""
    call, recorder = bound("cfg(2.0) | suppress_tokens([97])"), ScoreRecorder()
    drafts = Drafts(call.composite, lambda model: model.generate)
    (draft,) = drafts.processors(call.processors)
    scores = torch.randn(1, 272)
    got = draft(call.inputs["input_ids"], scores)
    assert got[0, 97] == -torch.inf and torch.equal(got[0, :97], scores[0, :97])
    assert drafts.processors([recorder]) == [recorder]
    assert call.trace.calls == 0 and not any(call.trace.forwards.values())


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("chain", ["cfg(2.0, negative='a fish')", "top_k(3) | suppress_tokens([97])"])
def test_an_assistant_with_another_tokenizer_drafts_without_the_chain(chain: str, sample: bool) -> None:
    """Universal assisted decoding writes the greedy text of the chain; sampled tokens obey the chain."""
    assistant = type(foreign_model())(foreign_model().config)  # sampling prunes its head
    other = copy.deepcopy(foreign_tokenizer())  # transformers knows a pruned head by the tokenizers
    given = {"assistant_model": assistant, "assistant_tokenizer": other, "tokenizer": tiny_tokenizer()}
    call = bound(chain)
    got = decode(call, "auto", do_sample=sample, **given)
    assert call.trace.fusion.reason.endswith("drafts leave out the chain")
    if not sample:
        assert torch.equal(got, decode(bound(chain), "auto"))
    elif "suppress" in chain:
        assert 97 not in got[0, call.prompts.width :]
