"""A reward model: a sequence classifier with one score, which judges whole texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from logitkit.errors import ParameterError
from logitkit.processors.engine.padded_rows import left_padded


class RewardModel:
    """Scores texts by a model with one output, such as ``AutoModelForSequenceClassification`` with one label.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        name: under which it was passed to bind, for errors.

    Raises:
        ParameterError: a model with another number of labels.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str) -> None:
        labels = getattr(model.config, "num_labels", None)
        if labels != 1:
            way_out = "pass a function(prompt, text) that reads the label that you want"
            got = f"{name} with {labels}"
            raise ParameterError("best_of", "by", "the name of a model with one label", got, way_out)
        self.model, self.tokenizer = model, tokenizer

    def __call__(self, prompt: str, text: str) -> float:
        """Return the score of a text after its prompt."""
        return float(self.rewards([prompt + text])[0])

    @torch.no_grad()
    def rewards(self, texts: Sequence[str]) -> Tensor:
        """Return the score of each text, fp32 ``[texts]``, by one forward for each length: no text is padded."""
        rows = [self.tokenizer(text)["input_ids"] for text in texts]
        scores = torch.zeros(len(rows))
        for length in sorted({len(row) for row in rows}):
            places = [place for place, row in enumerate(rows) if len(row) == length]
            ids, mask = left_padded([rows[place] for place in places], 0)
            device = self.model.device
            logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
            scores[places] = logits[:, 0].float().cpu()
        return scores
