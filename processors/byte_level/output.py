"""The output of a model over bytes, and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.modeling_outputs import CausalLMOutputWithPast

from logitkit.errors import ParameterError
from logitkit.processors.byte_level.tokenizer import SIZE


@dataclass
class ByteOutput(CausalLMOutputWithPast):
    """Output of a `ByteModel`.

    Attributes:
        logits: normalised log-probabilities in nats of the bytes and, at index 256, of the end; fp32
            ``[rows, kept, 257]``.
        past_key_values, cache: cache that holds the ids so far; transformers before 5.24 uses the first name.
        leak: probability, 0 to 1, that the model gives to tokens with which no canonical text continues; fp32
            ``[rows, kept]``. The leak is measured before the logits are normalised.
        bound: upper bound in nats on how far the computed log-probability of each text is below the true one; fp32
            ``[rows, kept]``.
        loss: mean cross-entropy in nats of the labels, where labels were passed.

    >>> from logitkit.processors.byte_level import ByteModel, rows_of
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> output = ByteModel(tiny_model(), tiny_tokenizer())(**rows_of([b"ab"]))
    >>> output.logits.shape, output.leak.shape
    (torch.Size([1, 2, 257]), torch.Size([1, 2]))
    """

    leak: Tensor | None = None
    bound: Tensor | None = None


def next_byte_loss(logits: Tensor, labels: Tensor, **settings: Any) -> Tensor:
    """Return the cross-entropy in nats of each label under the distribution before it, as transformers computes it.

    Args:
        logits: log-probabilities, ``[rows, length, 257]``.
        labels: ids 0 to 256, as ``input_ids``; -100 is ignored, ``[rows, length]``. The first label of a row has no
            distribution before it and is left out.
        settings: ``num_items_in_batch`` divides the sum in place of the number of labels; see transformers.

    Raises:
        ParameterError: labels of another shape, or a label that is no byte, no end and not -100.

    >>> import torch
    >>> logits = torch.tensor([0.25, 0.75]).log().expand(1, 3, 2)
    >>> round(float(next_byte_loss(torch.nn.functional.pad(logits, (0, 255), value=-torch.inf), torch.ones(1, 3))), 4)
    0.2877
    """
    if labels.shape != logits.shape[:2]:
        rule = f"of the shape {tuple(logits.shape[:2])} of the logits"
        raise ParameterError("ByteModel", "labels", rule, tuple(labels.shape))
    labels = labels.long()
    known = (labels == settings.get("ignore_index", -100)) | ((labels >= 0) & (labels < SIZE))
    if not bool(known.all()):
        raise ParameterError("ByteModel", "labels", f"0 to {SIZE - 1} or -100", int(labels[~known][0]))
    loss: Tensor = ForCausalLMLoss(logits, labels, SIZE, **settings)
    return loss
