"""Scorers that read whole rows: functions and sequence classifiers that `Attribute` asks about candidates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ModelError, ParameterError, ScoresError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.model_facts import vocabulary_size

AT_ONCE = 64  # rows that a classifier reads in one forward

RowScorer = Callable[[Tensor], Any]
"""Takes rows of token ids, ``[n, length]`` with the padding of their prompts; returns nats, ``[n]``."""


def checked_values(values: Any, count: int, owner: str) -> list[float]:
    """Return what a scorer returned, as numbers.

    Args:
        values: one number a row, ``[count]``; a tensor, an array or a list.
        count: number of rows.
        owner: the scorer, for the error.

    Raises:
        ScoresError: another shape, NaN or +inf.

    Example:
        >>> checked_values([-0.5, 0], 2, "attribute: scorer 'kind'")
        [-0.5, 0.0]
    """
    rule = f"{owner} must return one number a row, nats, [{count}], neither NaN nor +inf"
    try:
        tensor = torch.as_tensor(values).detach().double().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ScoresError(f"{rule}, got {type(values).__name__}; correct the scorer") from error
    if tensor.shape != (count,):
        raise ScoresError(f"{rule}, got the shape {[*tensor.shape]}; correct the scorer")
    wrong = tensor.isnan() | (tensor == torch.inf)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ScoresError(f"{rule}, got {float(tensor[row])} for row {row}; correct the scorer")
    return tensor.tolist()


class Classifier:
    """A sequence classifier or a reward model as a scorer of rows.

    With several labels the value is the log-probability of one of them. A model with one label is a reward model, and
    the value is its output. Rows are read whole, without the padding of their prompts.

    Args:
        model: a sequence classifier of transformers.
        label: number of the label; None: a model with one label.
        prompts: the prompts of the call, which know the padding of rows.
        tokenizer: the tokenizer of the generating model.
        own: the tokenizer of the classifier; None: that of the generating model, so rows are read as they are.
    """

    def __init__(self, model: Any, label: int | None, prompts: Prompts, tokenizer: Any, own: Any = None) -> None:
        self.model, self.label, self._prompts, self._tokenizer, self._own = model, label, prompts, tokenizer, own
        pad = getattr(model.config, "pad_token_id", None)
        if pad is None:
            raise ModelError(
                f"attribute: {type(model).__name__} must have a padding token, got none; set model.config.pad_token_id"
            )
        self._pad = int(pad)

    @torch.no_grad()
    def __call__(self, rows: Tensor) -> Tensor:
        """Return one value a row in nats, ``[n]``, for rows ``[n, length]``."""
        texts = self._tokens(rows)
        logits = [self._logits(texts[start : start + AT_ONCE]) for start in range(0, len(texts), AT_ONCE)]
        together = torch.cat(logits).float()
        if self.label is None:
            return together[:, 0]
        if getattr(self.model.config, "problem_type", None) == "multi_label_classification":
            return torch.nn.functional.logsigmoid(together)[:, self.label]
        return together.log_softmax(-1)[:, self.label]

    def _tokens(self, rows: Tensor) -> list[list[int]]:
        """Return the tokens of each row for the classifier."""
        if self._prompts.in_encoder:
            tokens: list[list[int]] = rows.tolist()
        else:
            index = self._prompts.rows(rows).tolist()
            width = self._prompts.width
            own = {number: self._prompts.tokens(number) for number in set(index)}
            tails = rows[:, width:].tolist()
            tokens = [[*own[number], *tail] for number, tail in zip(index, tails, strict=True)]
        if self._own is None:
            return tokens
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return self._own(texts)["input_ids"]  # type: ignore[no-any-return]

    def _logits(self, texts: list[list[int]]) -> Tensor:
        """Return the outputs of the classifier, ``[texts, labels]``; shorter texts are padded on the right."""
        width = max(1, *map(len, texts))
        ids = torch.tensor([[*text, *[self._pad] * (width - len(text))] for text in texts])
        mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
        device = self.model.device
        return self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits  # type: ignore[no-any-return]


def row_scorer(binding: Binding, name: str, label: int | str | None) -> RowScorer:
    """Return the scorer of rows with this name.

    Args:
        binding: the binding of the call; it holds the scorer, and the tokenizer of a classifier with its own.
        name: a name that was passed to `Chain.bind`.
        label: number or name of the label of a classifier.

    Raises:
        UnknownNameError: nothing was passed under this name.
        ModelError: neither a function nor a classifier, or a classifier of another vocabulary without its tokenizer.
        ParameterError: a label that the classifier does not have.
    """
    scorer = binding.resource(name)
    if not hasattr(scorer, "num_labels"):
        if not callable(scorer) or isinstance(scorer, torch.nn.Module):
            raise ModelError(
                f"attribute: scorer {name!r} must be a function of rows or a sequence classifier, "
                f"got {type(scorer).__name__}; pass scorer(rows) -> nats, [rows]"
            )
        if label is not None:
            raise ParameterError("attribute", "label", "left out, since the scorer is a function", label)
        return scorer  # type: ignore[no-any-return]
    own = _own_tokenizer(binding, name, scorer)
    return Classifier(scorer, _label(scorer, label), binding.prompts, binding.tokenizer, own)


def _own_tokenizer(binding: Binding, name: str, model: Any) -> Any:
    """Return the tokenizer of a classifier, or None where it reads the ids of the generating model."""
    try:
        tokenizer = binding.tokenizer_named(name)
        return None if tokenizer.get_vocab() == binding.tokenizer.get_vocab() else tokenizer
    except ModelError:
        width, own = model.config.vocab_size, vocabulary_size(binding.model) if binding.has_model else None
        if width != own:
            raise ModelError(
                f"attribute: classifier {name!r} must have the vocabulary of the generating model ({own} ids), got "
                f"{width} ids and no tokenizer; pass its tokenizer, bind(..., tokenizers={{{name!r}: tokenizer}})"
            ) from None
        return None


def _label(model: Any, label: int | str | None) -> int | None:
    """Return the number of a label; None for a reward model, which has one label."""
    names = {str(text): int(number) for number, text in (getattr(model.config, "id2label", None) or {}).items()}
    if model.num_labels == 1:
        if label is not None:
            raise ParameterError("attribute", "label", "left out, since the reward model has one label", label)
        return None
    number = names.get(label) if isinstance(label, str) else label
    if number is None or not 0 <= number < model.num_labels:
        known = ", ".join(names) or f"0 to {model.num_labels - 1}"
        raise ParameterError("attribute", "label", f"one of the labels of the classifier ({known})", label)
    return number
