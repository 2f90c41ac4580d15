"""States of a fold equal a fold over the log-probabilities of scoring, however `generate` calls the chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper

from logitkit.processors.engine import Binding, Composite, Fold, History, read_prompts
from logitkit.registry.laws import tiny_model, tiny_tokenizer

STEPS = [("temperature", TemperatureLogitsWarper(0.7))]


@dataclass
class Entropies:
    """The decaying sum of entropies, and the number of tokens; needs the whole distribution of each past token."""

    decay: float = 0.5
    key: Any = None

    def initial(self) -> Tensor:
        return torch.tensor([1.0, 0.0], dtype=torch.float64)

    def update(self, states: Tensor, logp: Tensor, tokens: Tensor) -> Tensor:
        entropy = -(logp.exp() * logp).sum(-1)
        return torch.stack([self.decay * states[:, 0] + entropy, states[:, 1] + 1], dim=1)


class Reads(LogitsProcessor):
    """Reads the states and the history at every call."""

    def __init__(self, history: History, fold: Fold) -> None:
        self.history, self.states, self.seen = history, history.folded(fold), list[Any]()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append((input_ids, self.states(input_ids), self.history(input_ids)))
        return scores


def bound(fold: Fold, texts: Any) -> tuple[Binding, Composite, Reads]:
    """A chain of a temperature and a processor that reads states."""
    binding = Binding(tiny_model(), tiny_tokenizer(), read_prompts(tiny_tokenizer(), tiny_model(), texts))
    reads = Reads(binding.after(STEPS).history, fold)
    parts = [*STEPS, ("reads", reads)]
    chain = Composite(parts, prompts=binding.prompts, trace=binding.trace, histories=binding.histories)
    return binding, chain, reads


@torch.no_grad()
def from_scratch(binding: Binding, row: Tensor, decay: float) -> tuple[list[float], list[float]]:
    """The state after a row and the log-probability of each token, from forwards without a cache or padding."""
    prompts = binding.prompts
    own = torch.tensor(prompts.tokens(int(prompts.rows(row[None])[0])))
    state, past = [1.0, 0.0], []
    for place in range(prompts.width, len(row)):
        prefix = torch.cat([own, row[prompts.width : place]])[None]
        logp = (tiny_model()(prefix, use_cache=False).logits[0, -1] / 0.7).double().log_softmax(-1)
        state = [decay * state[0] - float((logp.exp() * logp).sum()), state[1] + 1]
        past.append(float(logp[row[place]]))
    return state, past


MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "samples": {"do_sample": True, "num_return_sequences": 2},
    "beams": {"num_beams": 3},
    "assisted": {"assistant_model": tiny_model(1)},
}


@pytest.mark.parametrize("mode", MODES)
def test_equals_a_fold_from_scratch(mode: str) -> None:
    """States and log-probabilities of every step, in padded batches, with samples, beams and rejected drafts."""
    fold = Entropies()
    binding, chain, reads = bound(fold, ["abcabc"] if mode == "assisted" else ["one prompt", "a longer prompt"])
    settings = {"max_new_tokens": 5, "do_sample": False, "attention_mask": binding.prompts.mask, **MODES[mode]}
    torch.manual_seed(0)
    tiny_model().generate(binding.prompts.ids, logits_processor=[chain], **settings)
    assert len(reads.seen) >= 5
    for rows, states, history in reads.seen:
        for row, state, past in zip(rows, states, history, strict=True):
            want, logp = from_scratch(binding, row, fold.decay)
            torch.testing.assert_close(state, torch.tensor(want, dtype=torch.float64), atol=2e-5, rtol=0)
            torch.testing.assert_close(past, torch.tensor(logp, dtype=torch.float64), atol=2e-5, rtol=0)
    if mode != "assisted":
        assert set(binding.trace.forwards.values()) == {0}


def test_a_new_key_makes_states_anew() -> None:
    """States that were computed under other settings are not used again; log-probabilities follow suit."""
    fold = Entropies()
    binding, _, reads = bound(fold, ["one prompt"])
    rows = torch.cat([binding.prompts.ids, torch.tensor([[5, 6, 7]])], dim=1)
    first = reads.states(rows)
    fold.decay, fold.key = 0.9, "slower"
    want, _ = from_scratch(binding, rows[0], 0.9)
    torch.testing.assert_close(reads.states(rows)[0], torch.tensor(want, dtype=torch.float64), atol=2e-5, rtol=0)
    assert not torch.equal(first, reads.states(rows))


def test_two_folds_of_one_history() -> None:
    """Each has its own part of the cached values, and what was cached before the second one is computed again."""
    binding, _, reads = bound(Entropies(0.5), ["one prompt"])
    rows = torch.cat([binding.prompts.ids, torch.tensor([[5, 6, 7]])], dim=1)
    reads.states(rows)
    second = reads.history.folded(Entropies(0.9))
    for states, decay in ((second, 0.9), (reads.states, 0.5)):
        want, _ = from_scratch(binding, rows[0], decay)
        torch.testing.assert_close(states(rows)[0], torch.tensor(want, dtype=torch.float64), atol=2e-5, rtol=0)
    assert torch.equal(second(binding.prompts.ids), torch.tensor([[1.0, 0.0]], dtype=torch.float64))
