"""The loss of a `ByteModel` for given labels, with the conventions of transformers."""

from __future__ import annotations

import pytest
import torch

from logitkit.errors import ParameterError
from logitkit.processors.byte_level import ByteModel, rows_of
from reference.byte_distributions import tiny


def test_the_loss_is_the_mean_of_the_bytes() -> None:
    """Labels are predicted by the position before them; -100 is ignored, and the mean is over the others."""
    model = ByteModel(*tiny(3))
    ids = torch.tensor([list(b"ab abab")])
    output = model(ids, labels=ids)
    each = [float(model.logp([b"ab abab"[:end]])[0, b"ab abab"[end]]) for end in range(1, 7)]
    assert float(output.loss) == pytest.approx(-sum(each) / 6, abs=1e-5)
    labels = ids.clone()
    labels[0, :4] = -100
    assert float(model(ids, labels=labels).loss) == pytest.approx(-sum(each[3:]) / 3, abs=1e-5)
    summed = model(ids, labels=labels, num_items_in_batch=10).loss
    assert float(summed) == pytest.approx(-sum(each[3:]) / 10, abs=1e-5)
    assert model(ids).loss is None


def test_rows_of_a_padded_batch() -> None:
    """The loss of a batch is the mean over the bytes of all rows when padding has the label -100."""
    model = ByteModel(*tiny(3))
    inputs = rows_of([b"ab", b"b a ab"])
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    both = float(model(**inputs, labels=labels).loss)
    alone = [
        float(model(row, labels=row).loss) for row in (torch.tensor([list(b"ab")]), torch.tensor([list(b"b a ab")]))
    ]
    begun = -float(model.logp([b""])[0, ord("a")])  # behind its padding, the first byte has a distribution before it
    assert both == pytest.approx((begun + alone[0] + 5 * alone[1]) / 7, abs=1e-5)


def test_labels_that_do_not_fit() -> None:
    """Labels of another shape and ids of another tokenizer are named errors."""
    model = ByteModel(*tiny(3))
    ids = torch.tensor([list(b"ab")])
    with pytest.raises(ParameterError, match=r"labels must be of the shape \(1, 1\) of the logits, got \(1, 2\)"):
        model(ids, labels=ids, logits_to_keep=1)
    with pytest.raises(ParameterError, match="labels must be 0 to 256 or -100, got 300"):
        model(ids, labels=ids + 203)
