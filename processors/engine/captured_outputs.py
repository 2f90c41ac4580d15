"""Outputs of the generating model's own forward: logits and last hidden state, without a second forward.

A processor receives scores, which earlier processors may have changed, and no hidden state. `CapturedOutputs` keeps the
last outputs of the model through forward hooks. Captured outputs are used only if the scores equal the captured logits
bit for bit wherever the scores are finite. The result therefore depends on the rows alone: a forward of another call, a
widened batch, a rewound draft or a compiled forward without hooks does not match, and a `Reader` of the model reads the
rows instead. Two alternatives were rejected: a reader alone doubles the forwards, and ``output_hidden_states`` of
`generate` reaches no processor.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from logitkit.errors import ModelError
from logitkit.processors.engine.model_depth import ModelDepth
from logitkit.processors.engine.reader import Reader
from logitkit.processors.engine.riding_tokens import last_state
from logitkit.processors.engine.scores import LEAST_DIFFERENCE

if TYPE_CHECKING:
    from logitkit.processors.engine.binding import Binding


class CapturedOutputs:
    """Logits and last hidden state of the generating model after each row.

    Args:
        binding: names the model. The hooks stay on the model for as long as this object lives.
        hidden: whether the last hidden state is captured too.

    Attributes:
        reader: reads the rows when the captured outputs belong to other rows.
        misses: number of times that a reader read the rows.

    Raises:
        ModelError: with ``hidden``, a model with an encoder or without a base model under its head.

    Example:
        >>> from logitkit.processors.engine import Binding, CapturedOutputs, read_prompts
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> model, prompts = tiny_model(), read_prompts(tiny_tokenizer(), tiny_model(), "a prompt")
        >>> captured = CapturedOutputs(Binding(model, tiny_tokenizer(), prompts))
        >>> scores = model(prompts.ids).logits[:, -1]
        >>> bool((captured.logits(prompts.ids, scores) == scores).all()), captured.misses
        (True, 0)
    """

    def __init__(self, binding: Binding, *, hidden: bool = False) -> None:
        model, own = binding.model, binding.own_prompts()
        states = HiddenStates(model) if hidden else None
        self.misses = 0
        self._last_match: Callable[[Tensor], Tensor] | None = None  # what of the logits the scores were
        self._defers = True
        self.reader = binding.reader(own, label="generating model")
        self._states: Reader | None = None
        last = self._last = _LastForward(ModelDepth(model))
        hooks = [model.register_forward_hook(last.after_model)]
        if states is not None:
            self._states = binding.reader(own, states, label="hidden states of the generating model")
            hooks.insert(0, model.base_model.register_forward_hook(last.after_base_model))
        for hook in hooks:
            weakref.finalize(self, hook.remove)

    def __reduce__(self) -> Any:
        raise ModelError(
            "CapturedOutputs: cannot be pickled, because it holds a model; pickle the chain and bind it again"
        )

    def logits(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the model's own logits after each row, before any processor.

        Args:
            input_ids: ``[rows, length]``.
            scores: scores of the step, ``[rows, vocab]``; if a processor changed them, a reader reads the rows.

        Returns:
            fp32, ``[rows, vocab]``.
        """
        if self.computed(scores):
            assert self._last.logits is not None
            return self._last.logits[: len(scores)].to(scores.device)
        self.misses += 1
        return self.reader(input_ids)

    def hidden(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the last hidden state after each row.

        Args:
            input_ids: ``[rows, length]``.
            scores: scores of the step, ``[rows, vocab]``; if a processor changed them, a reader reads the rows.

        Returns:
            fp32, ``[rows, hidden width]``.
        """
        if self.computed(scores) and self._last.hidden is not None:
            return self._last.hidden[: len(scores)].to(scores.device)
        return self.read_hidden(input_ids)

    def read_hidden(self, input_ids: Tensor) -> Tensor:
        """Return the last hidden state after each row, ``[rows, length]``, by a forward of a reader."""
        assert self._states is not None
        self.misses += 1
        return self._states(input_ids)

    def computed(self, scores: Tensor, numbers: Tensor | None = None) -> bool:
        """Return whether the last forward of the generating model gave these scores.

        True when every possible entry equals the captured logits, or their log-probabilities, bit for bit.

        Args:
            scores: ``[rows, vocab]``.
            numbers: number of each row in the batch of the forward, ``[rows]``; None: the first rows of the batch.
        """
        logits = self._last.logits
        if logits is None or len(logits) < len(scores) or logits.shape[1] != scores.shape[1]:
            return False
        own = (logits[: len(scores)] if numbers is None else logits[numbers]).to(scores.device)
        # What the scores were at the last step they are assumed to be now; the comparison is read at the end of a step.
        if self._last_match is not None and self.reader.prompts.deferred_checks.check(
            _is_computed(self._last_match(own), scores), self._mismatch
        ):
            return True
        for candidate in (_logits, _log_softmax):  # beam search passes log-probabilities
            if bool(_is_computed(candidate(own), scores)):
                self._last_match = candidate if self._defers else None
                return True
        return False

    def _mismatch(self) -> None:
        """Compare at once from now on: the scores of some steps are not computed by the generating model."""
        self._last_match, self._defers = None, False


def _logits(logits: Tensor) -> Tensor:
    return logits


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1)


def _is_computed(candidate: Tensor, scores: Tensor) -> Tensor:
    """Return whether every possible score equals the candidate bit for bit; false for a row without one.

    A score is possible if it is above a bound, which no logit of a model reaches. Looking for the largest score of each
    row, as `is_impossible` does, would take longer.
    """
    equal = ((candidate == scores) | (scores <= LEAST_DIFFERENCE)).all(-1)
    return (equal & (scores.amax(-1) > LEAST_DIFFERENCE)).all()


class _LastForward(threading.local):
    """Outputs at the last position of the last forward of a thread.

    Other threads may run the model at the same time; each thread sees the outputs of its own forwards. A hook holds
    this object instead of a processor, so that the hook keeps no processor alive.
    """

    logits: Tensor | None = None
    hidden: Tensor | None = None
    _pending_hidden: Tensor | None = None

    def __reduce__(self) -> Any:
        return type(self), ()  # no processor reads the hooks of a copy of the model; without a depth they keep nothing

    def __init__(self, depth: ModelDepth | None = None) -> None:
        super().__init__()
        self._depth = depth

    def after_base_model(self, _: Any, __: Any, output: Any) -> None:
        """Keep the hidden state; the logits of the same forward follow."""
        state = getattr(output, "last_hidden_state", None)
        self._pending_hidden = None if state is None else last_state(state).float().clone()

    def after_model(self, _: Any, __: Any, output: Any) -> None:
        """Keep the logits, and the hidden state of the same forward; drop both when a draft left out layers."""
        whole = self._depth is not None and not self._depth.is_lowered()
        logits = getattr(output, "logits", None) if whole else None
        self.logits = None if logits is None else logits[:, -1].float().clone()
        self.hidden, self._pending_hidden = self._pending_hidden, None


class HiddenStates:
    """A model whose ``logits`` are its last hidden states, so that a `Reader` reads hidden states.

    The forward leaves out the head of the model.

    Args:
        model: a decoder-only model with a base model under its head.

    Raises:
        ModelError: a model without a base model under its head, or with an encoder.
    """

    def __init__(self, model: Any) -> None:
        if model.base_model is model or model.config.is_encoder_decoder:
            raise ModelError(
                f"HiddenStates: {type(model).__name__} must be decoder-only with a base model under its head; "
                "choose a method that needs no hidden states"
            )
        self.base = self.checked_as = model.base_model
        self.forward, self.config = self.base.forward, model.config
        self.prepared_by = model  # the methods that prepare inputs for `generate` are those of the whole model

    @property
    def device(self) -> Any:
        """Device of the model."""
        return self.base.device

    def __call__(self, **inputs: Any) -> Any:
        """Run the base model; ``logits`` of the output are hidden states, ``[rows, tokens, hidden width]``."""
        output = self.base(**inputs)
        output["logits"] = output.last_hidden_state
        return output
