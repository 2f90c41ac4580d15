"""Compare what `generate` did under a chain with recomputation from scratch, prefix by prefix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.streamers import BaseStreamer

from logitkit.registry.call import Call
from logitkit.registry.laws.recomputation import Continuation, Recomputation

TOKENS = 6
TOLERANCE = 1e-3  # nats; with and without a KV cache the logits differ in the last bits of fp32
ROUNDING = 1e-7  # of probabilities in fp32; all that is left of a token which a second stream nearly subtracts away


class ScoreRecorder(LogitsProcessor):
    """Keeps copies of the rows and scores that pass a place in the processor list.

    Attributes:
        seen: (input_ids, scores) of each call.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores unchanged."""
        self.seen.append((input_ids.clone(), scores.clone()))
        return scores


class StreamRecorder(BaseStreamer):
    """Keeps the streamed tokens; the prompt comes first.

    Attributes:
        pieces: the tokens of each step.
    """

    def __init__(self) -> None:
        self.pieces: list[Tensor] = []

    def put(self, value: Tensor) -> None:
        """Keep the tokens of a step, ``[rows]``, or the prompts, ``[rows, width]``."""
        self.pieces.append(value.reshape(-1))

    def end(self) -> None:
        """Do nothing."""


def generate_checked(scratch: Recomputation, call: Call | None = None, **settings: Any) -> Tensor:
    """Generate, and assert that all scores under the chain agree with recomputation and all tokens come from them.

    Args:
        scratch: chain, model and prompts.
        call: a bound call to use; a new one by default.
        settings: of ``generate``.

    Returns:
        Ids of the sequences, ``[rows, length]``.
    """
    call, recorder = call or scratch.bind(), ScoreRecorder()
    torch.manual_seed(0)
    chosen = {"max_new_tokens": TOKENS, "do_sample": False, **settings}
    ids = call.ids(call.generate(logits_processor=LogitsProcessorList([recorder]), **chosen))
    _assert_agreement(scratch, call, recorder, ids, beams="num_beams" in settings)
    return ids


def _assert_agreement(scratch: Recomputation, call: Call, recorder: ScoreRecorder, ids: Tensor, *, beams: bool) -> None:
    """Assert that recorded scores agree with recomputation, and that each generated token has a recorded prefix."""
    checked = set()
    for rows, returned in recorder.seen:
        for prefix, actual in zip(prefixes(scratch, call, rows), returned.log_softmax(-1), strict=True):
            if not scratch.ended(prefix[1]):
                checked.add(prefix)
                assert_close(actual, scratch(*prefix, beams=beams), f"the distribution after {prefix[1]}")
    for prompt, continuation in prefixes(scratch, call, ids):
        for length in range(len(scratch.start), len(continuation)):
            if not scratch.ended(continuation[:length]):
                prefix = prompt, continuation[:length]
                assert prefix in checked, f"the token after {prefix[1]} was generated without the chain"


def prefixes(scratch: Recomputation, call: Call, rows: Tensor) -> list[tuple[int, Continuation]]:
    """Return, for each row, the number of its prompt and the tokens of its continuation."""
    rows_per_prompt = len(rows) // len(scratch.prompts)
    return [(number // rows_per_prompt, tuple(row[call.prompts.width :].tolist())) for number, row in enumerate(rows)]


def assert_close(actual: Tensor, expected: Tensor, what: str) -> None:
    """Assert that two rows of log-probabilities are one distribution, up to `TOLERANCE`.

    A small probability that is the difference of two large ones has their rounding: up to 0.1 nats are let pass for
    a token whose probability differs by less than `ROUNDING`.
    """
    assert not bool(actual.isnan().any()), f"{what} is NaN"
    impossible = actual == -torch.inf
    others = (impossible != (expected == -torch.inf)).nonzero().flatten().tolist()
    assert not others, f"{what} has other impossible tokens than recomputation, {len(others)} with token {others[0]}"
    apart = (actual - expected).abs().nan_to_num(0)
    rounded = ((actual.double().exp() - expected.double().exp()).abs() < ROUNDING) & (apart < 0.1)
    apart = apart.masked_fill(rounded, 0)
    worst, token = float(apart.max()), int(apart.argmax())
    values = f"log-probability expected {float(expected[token]):.6g}, got {float(actual[token]):.6g}"
    assert worst < TOLERANCE, f"{what} is {worst:.1e} nats from recomputation, token {token}: {values}"


def assert_greedy(scratch: Recomputation, call: Call, ids: Tensor) -> None:
    """Assert that sequences are the greedy texts of recomputation; padding after their end is ignored."""
    for prompt, continuation in prefixes(scratch, call, ids):
        expected = scratch.greedy(prompt, TOKENS)
        what = f"greedy text {continuation} from prompt {prompt}, by recomputation {expected}"
        assert continuation[: len(expected)] == expected, what
