"""What the generating model computed anyway: its own logits and last hidden state, without a forward of ours.

A processor is given scores, and they may have been changed by whoever came before it; a hidden state it is
not given at all. `CapturedOutputs` listens to the model's forward passes through public hooks. What it heard is
used only if the scores at hand are those logits bit for bit, wherever they are still possible: so the answer
stays a function of the row, and a forward of another call, of a widened batch, of a rewound draft or one that
`generate` compiled away cannot be taken for the row's own. In every such case a `Reader` of the model reads
the row. The alternatives were worse: a reader alone reads everything twice, and ``output_hidden_states`` of
`generate` reaches no processor.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from logitkit.errors import ModelError
from logitkit.processors.engine.reader import Reader

if TYPE_CHECKING:
    from logitkit.processors.engine.binding import Binding


class CapturedOutputs:
    """Logits and last hidden state of the generating model after each row.

    Args:
        binding: whose model is listened to, for as long as this object lives.
        hidden: whether the hidden state is wanted too.

    Attributes:
        misses: how often a reader had to read.
    """

    def __init__(self, binding: Binding, *, hidden: bool = False) -> None:
        model, own = binding.model, binding.own_prompts()
        states = HiddenStates(model) if hidden else None
        self.misses = 0
        self.reader = binding.reader(own, label="the generating model again")
        self._states: Reader | None = None
        heard = self._heard = _Heard()
        hooks = [model.register_forward_hook(heard.end)]
        if states is not None:
            self._states = binding.reader(own, states, label="its hidden states")
            hooks.insert(0, model.base_model.register_forward_hook(heard.middle))
        for hook in hooks:
            weakref.finalize(self, hook.remove)

    def __reduce__(self) -> Any:
        raise ModelError("CapturedOutputs: cannot be pickled, it holds a model; pickle the chain and bind it again")

    def logits(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the model's own fp32 logits (or their log-probabilities) after each row, ``[rows, vocab]``."""
        if self.computed(scores):
            assert self._heard.logits is not None
            return self._heard.logits[: len(scores)].to(scores.device)
        self.misses += 1
        return self.reader(input_ids)

    def hidden(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the last hidden state after each row in fp32, ``[rows, width]``."""
        assert self._states is not None
        if self.computed(scores) and self._heard.hidden is not None:
            return self._heard.hidden[: len(scores)].to(scores.device)
        self.misses += 1
        return self._states(input_ids)

    def computed(self, scores: Tensor) -> bool:
        """Return whether the last forward of the generating model gave these scores, ``[rows, vocab]``.

        True when every possible entry equals the captured logits, or their log-probabilities, bit for bit.
        """
        heard = self._heard.logits
        if heard is None or len(heard) < len(scores) or heard.shape[1] != scores.shape[1]:
            return False
        own = heard[: len(scores)].to(scores.device)
        possible = scores > -torch.inf
        return any(
            bool(((candidate == scores) | ~possible).all() and possible.any(-1).all())
            for candidate in (own, own.log_softmax(-1))  # beams give log-probabilities
        )


class _Heard:
    """The last position of the last forward; kept apart, so that a hook holds no processor alive."""

    def __init__(self) -> None:
        self.logits: Tensor | None = None
        self.hidden: Tensor | None = None
        self._state: Tensor | None = None

    def middle(self, _: Any, __: Any, output: Any) -> None:
        """Note the hidden state; the logits of the same forward follow."""
        state = getattr(output, "last_hidden_state", None)
        self._state = None if state is None else state[:, -1].float().clone()

    def end(self, _: Any, __: Any, output: Any) -> None:
        """Note the logits, and which hidden state is theirs."""
        logits = getattr(output, "logits", None)
        self.logits = None if logits is None else logits[:, -1].float().clone()
        self.hidden, self._state = self._state, None


class HiddenStates:
    """A model whose logits are its last hidden states, for a `Reader`. Leaves the head out, so it costs less.

    Raises:
        ModelError: a model without a base model under its head, or with an encoder.
    """

    def __init__(self, model: Any) -> None:
        if model.base_model is model or model.config.is_encoder_decoder:
            raise ModelError(
                f"HiddenStates: {type(model).__name__} must be decoder-only with a base model under its head; "
                "choose a method that does without hidden states"
            )
        self.base = model.base_model
        self.forward, self.config = self.base.forward, model.config

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.base.device

    def __call__(self, **inputs: Any) -> Any:
        """Run the model; ``logits`` are ``[rows, tokens, width]`` hidden states."""
        output = self.base(**inputs)
        output["logits"] = output.last_hidden_state
        return output
