"""Values of candidates from an `AttributeHead`, which reads the states of the generating model's own forward."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from logitkit.errors import ModelError, ParameterError
from logitkit.files import is_folder
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.captured_outputs import CapturedOutputs
from logitkit.processors.engine.grown_rows import GrownRows
from logitkit.processors.samplers.attribute_head import AttributeHead, ModelFingerprint
from logitkit.processors.samplers.attributes import precise


class HeadValues:
    """Values of rows and candidates from a head and the states that the generating model's own forward computed.

    The value of a row is that of its last token as a candidate; before the first new token it is the base rate.
    A step before this one that changes more than masks, such as a temperature, costs a second forward for the states.

    Args:
        binding: the binding of the call.
        head: the head.

    Raises:
        ModelError: the head was trained for another model, or the model has an encoder.
    """

    def __init__(self, binding: Binding, head: AttributeHead) -> None:
        if not binding.has_model:
            raise ModelError(
                "attribute: head must read hidden states of the generating model, which this engine hides; "
                "choose another scorer"
            )
        check_head(head, binding)
        self.head, self.captured = head, CapturedOutputs(binding, hidden=True)
        self._embedding, self._settings = binding.model.get_input_embeddings(), binding.settings
        self._grown = GrownRows(binding.prompts, self._forget)
        self._forget()

    def _forget(self) -> None:
        self._rows: Tensor | None = None
        self._hidden: Tensor | None = None  # after the rows, [rows, hidden size]

    @torch.no_grad()
    def __call__(self, rows: Tensor, scores: Tensor, tokens: Tensor, ended: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of the rows, ``[rows]``, and of the candidates, ``[rows, kept]``.

        Args:
            rows: token ids, ``[rows, length]``.
            scores: scores of the step, ``[rows, vocab]``.
            tokens: the candidates, ``[rows, kept]``.
            ended: unused; other kinds of values leave such rows out.
        """
        before = self._of_rows(rows)
        hidden = self.captured.hidden(rows, scores)
        self._rows, self._hidden = rows, hidden
        self._grown.note(rows)
        return before, self._of_tokens(hidden, tokens)

    def _of_rows(self, rows: Tensor) -> Tensor:
        """Return the values of rows, ``[rows]``."""
        if rows.shape[1] <= self._settings.start:
            base = math.log(self.head.base_rate)
            return torch.full((len(rows),), base, dtype=precise(rows.device), device=rows.device)
        return self._of_tokens(self._before(rows), rows[:, -1:])[:, 0]

    def _before(self, rows: Tensor) -> Tensor:
        """Return the hidden states before the last token of each row, ``[rows, hidden size]``."""
        if self._rows is not None and self._hidden is not None and self._rows.shape[1] == rows.shape[1] - 1:
            if self._grown.new_tokens(rows):
                return self._hidden
            if self._rows is not None:
                same = (rows[:, None, :-1] == self._rows).all(-1)  # [rows, last rows]
                if bool(same.any(-1).all()):
                    return self._hidden[same.long().argmax(-1)]
        return self.captured.read_hidden(rows[:, :-1])

    def _of_tokens(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return the values of tokens behind hidden states, ``[rows, kept]``."""
        embedded = self._embedding(tokens.to(self._embedding.weight.device)).to(hidden.device).float()
        repeated = hidden[:, None].expand(*tokens.shape, hidden.shape[-1])
        return self.head(torch.cat([repeated, embedded], dim=-1)).to(tokens.device)


def check_head(head: AttributeHead, binding: Binding) -> None:
    """Refuse a head that was trained for another model or tokenizer.

    Raises:
        ModelError: names the part that differs.
    """
    actual = ModelFingerprint.of(binding.model, binding.tokenizer)
    for part, expected, present in zip(("model", "tokenizer"), head.trained_for, actual, strict=True):
        if expected != present:
            raise ModelError(
                f"attribute: head must have been trained for this model, got one for another {part} (fingerprint "
                f"{expected}, here {present}); train one: logitkit train-attribute"
            )


def head_named(binding: Binding, name: str) -> AttributeHead:
    """Return the head that was passed to bind under this name, or that a folder holds.

    Raises:
        ParameterError: neither a folder nor a name passed to bind.
        ModelError: the object passed to bind is no head.
        FileFormatError: the folder holds no head, or a damaged one.
    """
    if name in binding.resources:
        head = binding.resource(name)
    elif is_folder(Path(name).expanduser()):
        head = AttributeHead.load(Path(name).expanduser())
    else:
        raise ParameterError("attribute", "head", "a folder, or a name passed to bind", name)
    if not isinstance(head, AttributeHead):
        raise ModelError(f"attribute: head {name!r} must be an AttributeHead, got {type(head).__name__}")
    return head
