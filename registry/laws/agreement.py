"""Whether what `generate` did with a chain is what its recomputation from scratch says, prefix by prefix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from logitkit.registry.call import Call
from logitkit.registry.laws.recomputation import Continuation, Recomputation

TOKENS = 6
CLOSE = 1e-3  # nats; caches and fresh readings differ in the last bits of fp32


class Watch(LogitsProcessor):
    """Stands behind a chain and keeps what it answered."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores as they are."""
        self.seen.append((input_ids.clone(), scores.clone()))
        return scores


def generated(truth: Recomputation, call: Call | None = None, **settings: Any) -> Tensor:
    """Generate, and make sure that every answer of the chain and every token comes to the same from scratch."""
    call, watch = call or truth.bind(), Watch()
    torch.manual_seed(0)
    chosen = {"max_new_tokens": TOKENS, "do_sample": False, **settings}
    ids = call.ids(call.generate(logits_processor=LogitsProcessorList([watch]), **chosen))
    _agrees(truth, call, watch, ids, beams="num_beams" in settings)
    return ids


def _agrees(truth: Recomputation, call: Call, watch: Watch, ids: Tensor, *, beams: bool) -> None:
    """Compare what was watched with the truth, and the tokens with what was watched."""
    asked = set()
    for rows, answers in watch.seen:
        for prefix, answer in zip(prefixes(truth, call, rows), answers.log_softmax(-1), strict=True):
            if not truth.ended(prefix[1]):
                asked.add(prefix)
                _is_close(answer, truth(*prefix, beams=beams), f"the answer after {prefix[1]}")
    for prompt, written in prefixes(truth, call, ids):
        for length in range(len(truth.start), len(written)):
            if not truth.ended(written[:length]):
                assert (prompt, written[:length]) in asked, f"the token after {written[:length]} without the chain"


def prefixes(truth: Recomputation, call: Call, rows: Tensor) -> list[tuple[int, Continuation]]:
    """Of each row, which prompt it continues, and how."""
    each = len(rows) // len(truth.prompts)
    return [(number // each, tuple(row[call.prompts.width :].tolist())) for number, row in enumerate(rows)]


def _is_close(got: Tensor, want: Tensor, what: str) -> None:
    """Assert that two rows of log-probabilities are one distribution."""
    assert not bool(got.isnan().any()), f"{what} is NaN"
    assert torch.equal(got == -torch.inf, want == -torch.inf), f"{what} makes other tokens impossible than from scratch"
    worst = float((got - want).abs().nan_to_num(0).max())
    assert worst < CLOSE, f"{what} is {worst:.1e} nats from the one from scratch"


def is_greedy(truth: Recomputation, call: Call, ids: Tensor) -> None:
    """Assert that rows are the greedy texts from scratch, whatever padding follows their end."""
    for prompt, written in prefixes(truth, call, ids):
        want = truth.greedy(prompt, TOKENS)
        assert written[: len(want)] == want, f"greedy text {written} from prompt {prompt}, from scratch {want}"
