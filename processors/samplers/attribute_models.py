"""Scorers that read whole rows: functions and sequence classifiers that `AttributeStep` asks about candidates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from logitkit.errors import ModelError, ParameterError, ScoresError
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.deferred_checks import DeferredChecks
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.model_facts import vocabulary_size
from logitkit.processors.samplers.attributes import precise

AT_ONCE = 64  # rows that a classifier reads in one forward


class RowScorer(Protocol):
    """Gives rows a value.

    Attributes:
        reads_on_host: whether the scorer takes rows on the CPU, since it reads them as text.
    """

    reads_on_host: bool

    def __call__(self, rows: Tensor, index: Tensor) -> Any:
        """Return one value a row in nats, ``[n]``.

        Args:
            rows: token ids with the padding of their prompts, ``[n, length]``.
            index: number of the prompt of each row, ``[n]``.
        """


class Function:
    """A function of rows, ``[n, length]``, that returns nats, ``[n]``, as a scorer."""

    reads_on_host = False

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self.function = function

    def __call__(self, rows: Tensor, index: Tensor) -> Any:
        """Return what the function returns."""
        return self.function(rows)


def checked_values(values: Any, count: int, owner: str, checks: DeferredChecks | None = None) -> Tensor:
    """Return what a scorer returned, as numbers, float64 ``[count]``.

    Args:
        values: one number a row, ``[count]``; a tensor, an array or a list.
        count: number of rows.
        owner: the scorer, for the error.
        checks: of the running step; numbers on a device are read with its other comparisons.

    Raises:
        ScoresError: another shape, NaN or +inf.

    Example:
        >>> checked_values([-0.5, 0], 2, "attribute: scorer 'kind'")
        tensor([-0.5000,  0.0000], dtype=torch.float64)
    """
    rule = f"{owner} must return one number a row, nats, [{count}], neither NaN nor +inf"
    try:
        tensor = torch.as_tensor(values).detach()
        tensor = tensor.to(precise(tensor.device))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ScoresError(f"{rule}, got {type(values).__name__}; correct the scorer") from error
    if tensor.shape != (count,):
        raise ScoresError(f"{rule}, got the shape {[*tensor.shape]}; correct the scorer")

    def refuse() -> None:
        row = int((tensor.isnan() | (tensor == torch.inf)).nonzero()[0])
        raise ScoresError(f"{rule}, got {float(tensor[row])} for row {row}; correct the scorer")

    usable = (tensor < torch.inf).all()  # False for NaN
    if checks is None or tensor.device.type == "cpu":
        if not bool(usable):
            refuse()
    elif not checks.check(usable, refuse):
        refuse()
    return tensor


class ScoredRows:
    """Values of rows and of the tokens that may follow them, from a `RowScorer`.

    All candidates of all rows are asked about together, and the host reads the device once a step. The values of the
    last step's candidates are kept, so a row that grew by one of them is not asked about again.

    Args:
        name: the name under which the scorer was passed, for errors.
        scorer: the scorer.
        prompts: the prompts of the call.
    """

    def __init__(self, name: str, scorer: RowScorer, prompts: Prompts) -> None:
        self.name, self.scorer, self._prompts = name, scorer, prompts
        self._last: tuple[Tensor, Tensor, Tensor] | None = None  # rows, candidates, and their values

    def __call__(self, rows: Tensor, scores: Tensor, tokens: Tensor, ended: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of the rows, ``[rows]``, and of the candidates, ``[rows, kept]``; 0 for ended rows.

        Args:
            rows: token ids, ``[rows, length]``.
            scores: unused; other kinds of values depend on them.
            tokens: the candidates, ``[rows, kept]``.
            ended: which rows have ended, ``[rows]``.
        """
        device, index = rows.device, self._prompts.rows(rows)
        if self.scorer.reads_on_host:
            whole = torch.cat([rows, tokens, index[:, None], ended[:, None].long()], dim=1).cpu()
            rows, tokens, index, ended = whole.split([rows.shape[1], tokens.shape[1], 1, 1], dim=1)
            index, ended = index[:, 0], ended[:, 0].bool()
        before, found = self._known(rows, tokens)
        alive, new = torch.stack([~ended, ~found & ~ended]).cpu()
        after = torch.zeros(tokens.shape, dtype=precise(rows.device), device=rows.device)
        if bool(new.any()):
            places = _places(new, rows.device)
            before = before.index_copy(0, places, self._asked(rows[places], index[places]))
        if bool(alive.any()):
            places = _places(alive, rows.device)
            count, kept = len(places), tokens.shape[1]
            longer = rows[places][:, None].expand(count, kept, -1).reshape(count * kept, -1)
            longer = torch.cat([longer, tokens[places].reshape(-1, 1)], dim=1)
            owners = index[places][:, None].expand(count, kept).reshape(-1)
            after = after.index_copy(0, places, self._asked(longer, owners).view(count, kept))
        self._last = rows, tokens, after
        return before.to(device, precise(device)), after.to(device, precise(device))

    def _known(self, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value of each row where it was a candidate of the last step, and where that is so, ``[rows]``."""
        if self._last is None or self._last[0].shape[1] != rows.shape[1] - 1:
            none = torch.zeros(len(rows), dtype=precise(rows.device), device=rows.device)
            return none, none.bool()
        last, candidates, values = self._last
        same = (rows[:, None, :-1] == last).all(-1)  # [rows, last rows]
        chosen = (same[..., None] & (rows[:, -1, None, None] == candidates)).flatten(1)
        return values.flatten()[chosen.long().argmax(-1)], chosen.any(-1)

    def _asked(self, rows: Tensor, index: Tensor) -> Tensor:
        """Return the values of rows, float64 ``[n]``."""
        values = self.scorer(rows, index)
        owner = f"attribute: scorer {self.name!r}"
        values = checked_values(values, len(rows), owner, self._prompts.deferred_checks)
        return values.to(rows.device, precise(rows.device))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_last": None}


def _places(wanted: Tensor, device: torch.device) -> Tensor:
    """Return the numbers of the wanted rows on a device; ``wanted`` is on the CPU, ``[rows]``."""
    if bool(wanted.all()):
        return torch.arange(len(wanted), device=device)
    return wanted.nonzero()[:, 0].to(device)


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
        self.reads_on_host = own is not None
        self._paddings = (prompts.mask == 0).sum(-1)  # tokens before each prompt, [prompts]
        pad = getattr(model.config, "pad_token_id", None)
        if pad is None:
            raise ModelError(
                f"attribute: {type(model).__name__} must have a padding token, got none; set model.config.pad_token_id"
            )
        self._pad = int(pad)

    @torch.no_grad()
    def __call__(self, rows: Tensor, index: Tensor) -> Tensor:
        """Return one value a row in nats, ``[n]``; see `RowScorer`."""
        ids, mask = self._read_as_text(rows, index) if self.reads_on_host else self._padded_right(rows, index)
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        parts = zip(ids.split(AT_ONCE), mask.split(AT_ONCE), strict=True)
        together = torch.cat([self.model(input_ids=part, attention_mask=own).logits for part, own in parts]).float()
        return self.value_of(together)

    def value_of(self, logits: Tensor) -> Tensor:
        """Return the value of rows, ``[n]``, whose logits the classifier gave, fp32 ``[n, labels]``."""
        if self.label is None:
            return logits[:, 0]
        if getattr(self.model.config, "problem_type", None) == "multi_label_classification":
            return torch.nn.functional.logsigmoid(logits)[:, self.label]
        return logits.log_softmax(-1)[:, self.label]

    def padding(self, index: Tensor) -> Tensor:
        """Return the number of padding tokens before each row, ``[n]``."""
        if self._prompts.in_encoder:
            return torch.zeros_like(index)
        self._paddings = self._paddings.to(index.device)
        return self._paddings[index]

    def _padded_right(self, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows with their padding behind them, and the mask, ``[n, length]`` each."""
        places = torch.arange(rows.shape[1], device=rows.device) + self.padding(index)[:, None]
        mask = places < rows.shape[1]
        return torch.where(mask, rows.gather(1, places.clamp_max(rows.shape[1] - 1)), self._pad), mask.long()

    def _read_as_text(self, rows: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the texts of the rows in the tokens of the classifier, padded on the right, and the mask."""
        tokens = [row[padding:] for row, padding in zip(rows.tolist(), self.padding(index).tolist(), strict=True)]
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        encoded = self._own(texts)["input_ids"]
        width = max(1, *map(len, encoded))
        ids = torch.tensor([[*text, *[self._pad] * (width - len(text))] for text in encoded])
        return ids, torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in encoded])


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
        return Function(scorer)
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
