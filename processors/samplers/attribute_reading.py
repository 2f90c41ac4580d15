"""Classifiers that read along: causal sequence classifiers whose cache holds the rows.

A causal classifier judges a text by the state of its last token, so the values of all candidates of a row come from one
forward over the row's newest token and the candidates: each candidate sees the row and itself.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from logitkit.processors.engine.grown_rows import GrownRows
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.model_facts import text_config, vocabulary_size
from logitkit.processors.samplers.attribute_models import Classifier, checked_values
from logitkit.processors.samplers.attributes import precise
from logitkit.processors.transformers_api import with_cache

TOLERANCE = 1e-3  # by which the check's logits may differ, relative to the largest

_EXACT: WeakSet[Any] = WeakSet()


class ReadAlong:
    """Values of rows and of the tokens that may follow them, from a classifier that keeps a cache of the rows.

    A step feeds the newest token of each row and the candidates, and then drops the candidates from the cache. Rows
    that grew by a token make the host wait for nothing; rows that were permuted take their cache along, and other
    rows are read from their prompts.

    Args:
        name: the name under which the classifier was passed, for errors.
        classifier: the classifier; it reads the ids of the generating model, and `reads_along` holds for its model.
        prompts: the prompts of the call.
    """

    def __init__(self, name: str, classifier: Classifier, prompts: Prompts) -> None:
        self.name, self.classifier, self._prompts = name, classifier, prompts
        self._grown = GrownRows(prompts, self._forget)
        self._forget()

    def _forget(self) -> None:
        self._rows: Tensor | None = None
        self._cache: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "classifier": self.classifier, "_prompts": self._prompts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._grown = GrownRows(self._prompts, self._forget)
        self._forget()

    @torch.no_grad()
    def __call__(self, rows: Tensor, scores: Tensor, tokens: Tensor, ended: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of the rows, ``[rows]``, and of the candidates, ``[rows, kept]``, float64.

        Args:
            rows: token ids, ``[rows, length]``.
            scores: unused; other kinds of values depend on them.
            tokens: the candidates, ``[rows, kept]``.
            ended: unused; other kinds of values leave such rows out.

        Raises:
            ScoresError: the classifier gives NaN or +inf.
        """
        device, model = rows.device, self.classifier.model
        try:
            known = self._known(rows)
            padding = self.classifier.padding(self._prompts.rows(rows)).to(model.device)
            chunk = torch.cat([rows[:, known:], tokens], dim=1).to(model.device)
            logits = _read(model, self._cache, chunk, tokens.shape[1], padding)
            self._cache.crop(-tokens.shape[1])
        except BaseException:  # an interrupted forward leaves a cache that matches no tokens
            self._forget()
            raise
        self._rows = rows
        self._grown.note(rows)
        values = self.classifier.value_of(logits.flatten(0, 1))
        owner = f"attribute: scorer {self.name!r}"
        values = checked_values(values, len(values), owner, self._prompts.deferred_checks)
        values = values.to(device, precise(device))
        values = values.view(len(rows), -1)
        return values[:, 0], values[:, 1:]

    def _known(self, rows: Tensor) -> int:
        """Bring the cache to a beginning of these rows; return the length of this beginning, below that of the rows."""
        if self._rows is not None and self._rows.shape[1] < rows.shape[1]:
            length = self._rows.shape[1]
            if self._grown.new_tokens(rows):
                return length
            if self._rows is not None:
                same = (rows[:, None, :length] == self._rows).all(-1)  # [rows, last rows]
                if bool(same.any(-1).all()):
                    self._cache.reorder_cache(same.long().argmax(-1).to(self.classifier.model.device))
                    return length
        self._cache = DynamicCache(config=text_config(self.classifier.model))
        return 0


def _read(model: Any, cache: Any, chunk: Tensor, kept: int, padding: Tensor) -> Tensor:
    """Return fp32 logits after each row and after each of its candidates, ``[rows, 1 + kept, labels]``.

    Args:
        model: the classifier.
        cache: of the rows before the chunk.
        chunk: the new tokens of each row, then its candidates, ``[rows, new + kept]``.
        kept: number of candidates.
        padding: number of padding tokens before each row, ``[rows]``.
    """
    before = cache.get_seq_length()
    length = before + chunk.shape[1] - kept
    places = torch.arange(before + chunk.shape[1], device=chunk.device)
    own = places[before:, None]
    seen = (places <= own) & ((places < length) | (places == own))  # a candidate sees the row and itself
    seen = seen & (places >= padding[:, None, None])  # [rows, new + kept, all]
    least = torch.finfo(model.dtype).min
    mask = torch.zeros(seen.shape, dtype=model.dtype, device=chunk.device).masked_fill(~seen, least)[:, None]
    positions = (places[before:].clamp_max(length) - padding[:, None]).clamp_min(0)
    output = model.base_model(input_ids=chunk, attention_mask=mask, position_ids=positions, **with_cache(cache))
    return model.score(output.last_hidden_state[:, -kept - 1 :]).float()  # type: ignore[no-any-return]


def reads_along(model: Any) -> bool:
    """Return whether a classifier can read along: a head on the last state of a causal model with full attention.

    The first answer for a model compares both ways of reading.

    Args:
        model: a sequence classifier.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> reads_along(BertForSequenceClassification(BertConfig(num_hidden_layers=1)))
        False
    """
    if model in _EXACT:
        return True
    config = text_config(model)
    kinds = set(getattr(config, "layer_types", None) or ())
    windowed = getattr(config, "sliding_window", None) and not kinds
    if model.config.is_encoder_decoder or kinds - {"full_attention"} or windowed or model.base_model is model:
        return False
    if not isinstance(getattr(model, "score", None), nn.Linear) or model.training:
        return False
    first, *others = ((vocabulary_size(model) // 2 + place) % vocabulary_size(model) for place in range(4))
    ids = torch.tensor([[first, others[0]]], device=model.device)
    try:
        with torch.no_grad():
            chunk = torch.cat([ids, torch.tensor([others[1:]], device=model.device)], dim=1)
            got = _read(model, DynamicCache(config=config), chunk, 2, ids.new_zeros(1))[0]
            whole = [ids, *(torch.cat([ids, ids.new_tensor([[token]])], dim=1) for token in others[1:])]
            want = torch.cat([model(input_ids=row).logits.float() for row in whole])
    except Exception:  # a forward that takes no mask of four dimensions, no positions or no cache fails in its own way
        return False
    exact = bool(((got - want).abs() <= TOLERANCE * want.abs().max().clamp_min(1)).all())
    if exact:
        _EXACT.add(model)
    return exact
