"""Histories equal scoring every prefix from scratch, however `generate` calls the chain."""

from __future__ import annotations

import pickle
from typing import Annotated, Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper

import logitkit
from fakes import absolute_model, encoder_decoder_model, sliding_model
from logitkit.adapters import tokens_only
from logitkit.errors import ModelError, PromptError
from logitkit.params import Resource
from logitkit.processors.engine import Binding, Composite, History, Prompts, Trace, as_stream, read_prompts
from logitkit.registry import Plugin, Registry
from logitkit.registry.laws import tiny_model, tiny_tokenizer

TEXTS = ["one prompt", "a second, longer prompt"]
KINDS = {"rotary": tiny_model, "absolute": absolute_model, "sliding": sliding_model, "encoder": encoder_decoder_model}
STEPS = [("temperature", TemperatureLogitsWarper(0.7)), ("top_k", TopKLogitsWarper(40))]
TOLERANCE = {"atol": 2e-5, "rtol": 0}  # fp32 logits of a cached forward and of a forward from scratch


@torch.no_grad()
def from_scratch(model: Any, prompts: Prompts, rows: Tensor, steps: Any = STEPS) -> Tensor:
    """Read every prefix of every row alone, without a cache, and score the next token in float64."""
    start = prompts.width + prompts.in_encoder
    logp = torch.zeros(len(rows), rows.shape[1] - start, dtype=torch.float64)
    index = prompts.rows(rows)
    for row in range(len(rows)):
        own = torch.tensor([prompts.tokens(int(index[row]))])
        for column, end in enumerate(range(start, rows.shape[1])):
            prefix = rows[row : row + 1, :end]
            if prompts.in_encoder:
                scores = model(input_ids=own, decoder_input_ids=prefix).logits[:, -1].float()
            else:
                ids = torch.cat([own, prefix[:, prompts.width :]], dim=1)
                scores = model(input_ids=ids, use_cache=False).logits[:, -1].float()
            for _, step in steps:
                scores = step(prefix, scores)
            logp[row, column] = scores.double().log_softmax(-1)[0, rows[row, end]]
    return logp


class Checks(LogitsProcessor):
    """Reads its history at every call, and keeps what it saw for the test."""

    def __init__(self, history: History) -> None:
        self.history, self.seen = history, []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append((input_ids, self.history(input_ids)))
        return scores


def bound(model: Any, steps: Any = STEPS, texts: Any = TEXTS) -> tuple[Binding, Composite, Checks]:
    """A chain of steps and a processor that reads their history."""
    binding = Binding(model, tiny_tokenizer(), read_prompts(tiny_tokenizer(), model, texts))
    checks = Checks(binding.after(steps).history)
    parts = [*steps, ("checks", checks)]
    chain = Composite(parts, prompts=binding.prompts, trace=binding.trace, histories=binding.histories)
    return binding, chain, checks


def generate(model: Any, binding: Binding, chain: Composite, **mode: Any) -> Tensor:
    """Generate 6 tokens under the chain."""
    prompts = binding.prompts
    settings = {"max_new_tokens": 6, "do_sample": False, "attention_mask": prompts.mask} | mode
    torch.manual_seed(0)
    return model.generate(prompts.ids, logits_processor=[chain], **settings)


MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "samples": {"do_sample": True, "top_k": 0, "num_return_sequences": 2},
    "beams": {"num_beams": 3},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_scoring_every_prefix(kind: str, mode: str) -> None:
    """In padded batches, with samples and beams, and the running chain makes no extra forward."""
    model = KINDS[kind]()
    binding, chain, checks = bound(model)
    generate(model, binding, chain, **MODES[mode])
    assert len(checks.seen) == 6
    for rows, logp in checks.seen:
        torch.testing.assert_close(logp, from_scratch(model, binding.prompts, rows), **TOLERANCE)
    assert set(binding.trace.forwards.values()) == {0}


@pytest.mark.parametrize("mode", ["assistant", "prompt_lookup"])
def test_drafts_leave_no_wrong_values(mode: str) -> None:
    """Values stay right when the chain sees scores of a draft model or of no model, and rewound rows."""
    model = tiny_model()
    binding, chain, checks = bound(model, texts=["abcabcabcabc"])
    drafts: dict[str, Any] = (
        {"assistant_model": tiny_model(1)} if mode == "assistant" else {"prompt_lookup_num_tokens": 3}
    )
    generate(model, binding, chain, **drafts)
    for rows, logp in checks.seen:
        torch.testing.assert_close(logp, from_scratch(model, binding.prompts, rows), **TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_any_order_of_rows(kind: str) -> None:
    """Grown, permuted, shared, shortened and new rows have the values of a fresh history."""
    model = KINDS[kind]()
    binding, _, checks = bound(model)
    prompts, history = binding.prompts, checks.history
    heads = torch.zeros(2, 1, dtype=torch.long) if prompts.in_encoder else prompts.ids
    tails = torch.randint(0, 256, (2, 7), generator=torch.Generator().manual_seed(0))
    whole = torch.cat([heads, tails], dim=1)
    width = heads.shape[1]
    asked = [whole[:, : width + 3], whole[:, : width + 4], whole, whole[:, : width + 2]]
    if not prompts.in_encoder:  # rows of an encoder model are told apart by their place alone
        asked += [whole.flip(0), whole[[1, 1, 0, 0]][:, : width + 5], whole[[0]]]
    other = whole.clone()
    other[:, width + 2] += 1
    for rows in [*asked, other, whole[:, :width]]:
        torch.testing.assert_close(history(rows), from_scratch(model, prompts, rows), **TOLERANCE)


def test_scoring_gives_the_same_values() -> None:
    """The history of a chain's last step is what `logitkit.score` computes for the preceding steps."""
    from logitkit.registry.scoring import score_tokens

    spec = logitkit.Spec(name="checks", summary="Reads.", source="here", target=f"{__name__}:Recording")
    registry = Registry([*logitkit.Chain().registry.plugins, Plugin(name="here", origin="a test", specs=(spec,))])
    model, tokenizer = tiny_model(), tiny_tokenizer()
    chain = "cfg(2.0) | top_k(40)"
    call = logitkit.Chain(f"{chain} | checks()", registry=registry).bind(model, tokenizer, TEXTS)
    rows = call.generate(max_new_tokens=6, do_sample=False)
    want = score_tokens(logitkit.Chain(chain).bind(model, tokenizer, TEXTS), rows[:, call.prompts.width :].tolist())
    got = call.composite.parts[-1][1].history(rows)
    torch.testing.assert_close(
        got, torch.tensor([[logp for logp, _ in row] for row in want], dtype=torch.float64), **TOLERANCE
    )


class Recording(LogitsProcessor):
    """A third party's processor that gets its history when it is bound."""

    def __init__(self, *, history: Annotated[History, Resource()]) -> None:
        self.history = history

    @classmethod
    def bind(cls, binding: Binding) -> Recording:
        return cls(history=binding.history)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.history(input_ids)
        return scores


def test_reading_the_past_leaves_no_marks() -> None:
    """A miss calls the preceding processors again, and the trace does not count these calls."""
    model = tiny_model()
    trace = Trace(recording=True)

    class Counts(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            trace.count_fired("counts", torch.ones(len(scores), dtype=torch.bool))
            trace.average("counts", "mean", torch.ones(len(scores)))
            trace.note(seen=torch.ones(len(scores)))
            return scores

    prompts = read_prompts(tiny_tokenizer(), model, TEXTS)
    binding = Binding(model, tiny_tokenizer(), prompts, trace=trace)
    history = binding.after([("counts", Counts())]).history
    history(torch.cat([prompts.ids, torch.zeros(2, 3, dtype=torch.long)], dim=1))
    assert not trace.fired and not trace.means and not trace.steps and trace.recording


def test_one_history_for_each_step() -> None:
    """Two processors at one place of a chain share a history, and each later step has a separate history."""
    model = tiny_model()
    binding = Binding(model, tiny_tokenizer(), read_prompts(tiny_tokenizer(), model, TEXTS))
    assert binding.history is binding.after([]).history
    assert binding.after(STEPS).history is not binding.history


def table(rows: Tensor) -> Tensor:
    """A model over 3 tokens with exact probabilities, which depend on the last token."""
    return torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.25, 0.5]]).log()[rows[:, -1]]


def small_prompts() -> Prompts:
    """One prompt of one token."""
    return Prompts(ids=torch.tensor([[0]]), mask=torch.ones(1, 1), texts=("",), messages=(None,), adds_specials=False)


def test_worked_example() -> None:
    """By hand: 0 -> 1 has probability 1/4, 1 -> 1 has 3/4; without token 0, they are 1/2 and 6/7."""

    class Without(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            return scores.masked_fill(torch.tensor([True, False, False]), -torch.inf)

    rows = torch.tensor([[0, 1, 1]])
    plain = History(small_prompts(), (), stream=as_stream(table))
    masked = History(small_prompts(), [("without", Without())], stream=as_stream(table))
    torch.testing.assert_close(plain(rows).exp(), torch.tensor([[0.25, 0.75]], dtype=torch.float64))
    torch.testing.assert_close(masked(rows).exp(), torch.tensor([[0.5, 6 / 7]], dtype=torch.float64))
    assert plain(rows[:, :1]).shape == (1, 0)


def test_without_a_model_a_miss_is_an_error() -> None:
    """Observed rows are known; a row whose prefix no step saw is refused by name."""
    history = History(small_prompts(), (), stream=None)
    rows = torch.tensor([[0, 1, 2]])
    for end in (1, 2):
        history.observe(rows[:, :end], table(rows[:, :end]), table(rows[:, :end]))
    torch.testing.assert_close(history(rows).exp(), torch.tensor([[0.25, 0.125]], dtype=torch.float64))
    with pytest.raises(ModelError, match="history: the log-probabilities of these rows must be known"):
        history(torch.tensor([[0, 2, 2]]))
    with pytest.raises(PromptError):
        history(torch.tensor([[1, 2]]))


def test_the_cache_is_not_handed_out() -> None:
    """Writing to a returned tensor changes no later result."""
    history = History(small_prompts(), (), stream=as_stream(table))
    rows = torch.tensor([[0, 1, 1]])
    for _ in range(3):
        got = history(rows)
        torch.testing.assert_close(got.exp(), torch.tensor([[0.25, 0.75]], dtype=torch.float64))
        got.zero_()


def test_a_history_cannot_be_pickled() -> None:
    """The error says what to pickle instead."""
    with pytest.raises(ModelError, match="History: cannot be pickled"):
        pickle.dumps(History(small_prompts(), (), stream=None))


def test_long_rows_are_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A miss of seven tokens in chunks of three has the values of a single chunk, with one forward a chunk."""
    model = tiny_model()
    binding, _, checks = bound(model)
    rows = torch.cat([binding.prompts.ids, torch.randint(0, 256, (2, 7))], dim=1)
    monkeypatch.setattr("logitkit.processors.engine.history.CHUNK", 3)
    got = checks.history(rows)
    torch.testing.assert_close(got, from_scratch(model, binding.prompts, rows), **TOLERANCE)
    assert sum(binding.trace.forwards.values()) == 3


def test_an_engine_without_a_model_has_histories_of_observed_rows() -> None:
    """In an engine that hands over tokens and scores alone, growing rows are known and an unseen row is refused."""
    spec = logitkit.Spec(name="checks", summary="Reads.", source="here", target=f"{__name__}:Recording")
    registry = Registry([*logitkit.Chain().registry.plugins, Plugin(name="here", origin="a test", specs=(spec,))])
    chain = logitkit.Chain("temperature(0.7) | checks()", registry=registry)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    row = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    prompts = read_prompts(tokenizer, model, TEXTS[0])
    composite = tokens_only.bound(chain, "vllm", tokenizer, row[0].tolist())
    for _ in range(4):
        with torch.no_grad():
            scores = composite(row, model(row).logits[:, -1].float())
        row = torch.cat([row, scores.argmax(-1, keepdim=True)], dim=1)
    history = composite.parts[-1][1].history
    want = from_scratch(model, prompts, row, [("temperature", TemperatureLogitsWarper(0.7))])
    torch.testing.assert_close(history(row), want, **TOLERANCE)
    with pytest.raises(ModelError, match="there is no model to read them"):
        history(torch.cat([row, row[:, -2:]], dim=1))
