"""What a chain did at every token of one continuation: the distribution before and after it, and the choice.

    found = inspect(model, tokenizer, "Once upon a time", "cfg(1.5)", max_new_tokens=32)
    found.moves[3].js_bits

``inspect_page`` writes it as a page, ``inspect_terminal`` for a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ModelError, ParameterError
from logitkit.inspection.completion import Completion, complete
from logitkit.processors.engine.divergences import js_bits
from logitkit.processors.engine.trace import Step, Trace, likeliest
from logitkit.processors.tokens.vocabulary import Vocabulary
from logitkit.registry.chain import Chain

Likeliest = tuple[tuple[int, float], ...]
OWN = "generating model"


@dataclass(frozen=True, eq=False, kw_only=True)
class Move:
    """One token, and what the whole chain did to the distribution it was chosen from.

    Attributes:
        token: its id.
        js_bits: Jensen-Shannon divergence between before and after, in bits, 0 to 1.
        before, after: the likeliest tokens, ``(id, probability)``, best first.
        probability: of the token, before and after.
        rank: of the token, before and after; 1 is the likeliest.
        forwards: forward passes spent on it, by who reads.
        steps: what each processor did, in order, with what it noted (gates, weights).
    """

    token: int
    js_bits: float
    before: Likeliest
    after: Likeliest
    probability: tuple[float, float]
    rank: tuple[int, int]
    forwards: Mapping[str, int]
    steps: tuple[Step, ...]

    @property
    def changed(self) -> bool:
        """Whether another token is the likeliest one now."""
        return self.before[0][0] != self.after[0][0]


class Watch:
    """Looks on while one row is continued; the token of a step is known only at the next one.

    Args:
        trace: of the call, recording.
        top: how many of the likeliest tokens are kept.
    """

    def __init__(self, trace: Trace, top: int) -> None:
        self.trace, self.top = trace, top
        self.moves: list[Move] = []
        self.begin = 0
        self._open: tuple[Move, Tensor, Tensor] | None = None
        self._seen, self._forwards = 0, dict(trace.forwards)

    def observe(self, input_ids: Tensor, before: Tensor, after: Tensor) -> None:
        """See one step of the row."""
        if self._open is None:
            self.begin = input_ids.shape[1]
        else:
            self._choose(int(input_ids[0, -1]))
        now = dict(self.trace.forwards)
        spent = {name: count - self._forwards.get(name, 0) for name, count in now.items()}
        steps, self._seen, self._forwards = self.trace.steps[self._seen :], len(self.trace.steps), now
        move = Move(
            token=-1,
            js_bits=0.0 if torch.equal(before, after) else float(js_bits(before, after)[0]),
            before=likeliest(before, self.top)[0],
            after=likeliest(after, self.top)[0],
            probability=(0.0, 0.0),
            rank=(0, 0),
            forwards={OWN: 1} | {name: count for name, count in spent.items() if count},
            steps=tuple(steps),
        )
        self._open = move, before[0].float().softmax(-1), after[0].float().softmax(-1)

    def finish(self, row: list[int]) -> list[Move]:
        """Return every move, given the finished row of token ids."""
        if self._open is not None and len(row) > self.begin + len(self.moves):
            self._choose(row[self.begin + len(self.moves)])
        return self.moves

    def _choose(self, token: int) -> None:
        """Close the last step: this is what was chosen."""
        assert self._open is not None
        move, before, after = self._open
        self.moves.append(
            replace(
                move,
                token=token,
                probability=(float(before[token]), float(after[token])),
                rank=(1 + int((before > before[token]).sum()), 1 + int((after > after[token]).sum())),
            )
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Inspection:
    """A continuation with the move of every token.

    Attributes:
        completion: the text, the trace and the cost.
        moves: one a token.
        tokenizer: of the generating model.
        prompt: the prompt as the model reads it.
        model: name of the generating model.
        settings: of `generate`.
    """

    completion: Completion
    moves: list[Move]
    tokenizer: Any
    prompt: str
    model: str
    settings: Mapping[str, Any]

    @cached_property
    def _bytes(self) -> tuple[bytes | None, ...] | None:
        """What every token spells; a slow tokenizer does not say."""
        try:
            return Vocabulary.of(self.tokenizer).token_bytes
        except ModelError:
            return None

    def spelled(self, token: int) -> str:
        """The token as text: its own spaces kept, bytes that are no whole character escaped."""
        if self._bytes is None:
            return str(self.tokenizer.decode([token]))
        spelled = self._bytes[token] if token < len(self._bytes) else None
        if spelled is None:
            return str(self.tokenizer.convert_ids_to_tokens(token) or f"<id {token}>")
        return spelled.decode(errors="backslashreplace")

    def most_moved(self, count: int) -> list[tuple[int, Move]]:
        """The tokens at which the chain moved the distribution most, with their places, largest first."""
        return sorted(enumerate(self.moves), key=lambda pair: -pair[1].js_bits)[:count]


def inspect(
    model: Any,
    tokenizer: Any,
    prompt: Any,
    chain: str | Chain = "",
    *,
    top: int = 8,
    seed: int = 0,
    **settings: Any,
) -> Inspection:
    """Continue one prompt under a chain, and look at every step.

    Args:
        model, tokenizer: what generates.
        prompt: one text, or the messages of one chat.
        chain: what to look at; empty is plain decoding.
        top: likeliest tokens to keep, before and after.
        seed: of the sampling.
        settings: of ``model.generate``, where ``max_new_tokens`` is 64 unless given; also ``resources`` and
            ``tokenizers``, as in `logitkit.generate`.

    Raises:
        ParameterError: several prompts, or a way of generating that does not write one row from left to right.
    """
    for name in ("num_beams", "num_return_sequences", "assistant_model", "prompt_lookup_num_tokens"):
        if settings.get(name) not in (None, 1):
            raise ParameterError("inspect", name, "left out, it follows one row from left to right", settings[name])
    settings = {"max_new_tokens": 64, "do_sample": False} | settings
    watches: list[Watch] = []

    def look_on(call: Any) -> None:
        if len(call.prompts) != 1:
            raise ParameterError("inspect", "prompt", "one prompt", call.prompts.texts)
        watches.append(Watch(call.trace, top))
        call.composite.observer = watches[0]

    done = complete(model, tokenizer, prompt, Chain(chain), record=True, seed=seed, ready=look_on, **settings)
    return Inspection(
        completion=done,
        moves=watches[0].finish(done.row),
        tokenizer=tokenizer,
        prompt=done.call.prompts.texts[0],
        model=str(getattr(model, "name_or_path", "") or type(model).__name__),
        settings={name: value for name, value in settings.items() if name not in ("resources", "tokenizers")}
        | ({"seed": seed} if settings["do_sample"] else {}),
    )


def visible(text: str) -> str:
    """A token by itself, its white space and control characters made visible."""
    marks = {" ": "␣", "\n": "⏎", "\t": "⇥"}
    return "".join(marks.get(sign) or (sign if sign.isprintable() else ascii(sign)[1:-1]) for sign in text)


def spoken(text: str) -> str:
    """A token by itself for who hears it: white space has names, where there is nothing else."""
    names = {" ": "space", "\n": "line break", "\t": "tab"}
    return visible(text.strip()) or ", ".join(names.get(sign, ascii(sign)) for sign in text) or "nothing"


def bits(value: float) -> str:
    """A divergence as it is shown: three decimals, and not zero where it is not."""
    return "0" if value <= 0 else "<0.001" if value < 0.001 else f"{value:.3f}"


def noted(step: Step) -> str:
    """What a processor noted at a step, in words."""
    said = {
        name: ("yes" if value else "no") if isinstance(value, bool) else f"{value:.3g}"
        for name, value in step.notes.items()
    }
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in said.items())
