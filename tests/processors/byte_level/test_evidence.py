"""`Evidence`: the log-probability of continuations under each model."""

from __future__ import annotations

import pytest
import torch

import logitkit
from logitkit.errors import PromptError
from logitkit.processors.byte_level import ByteModel, Evidence, byte_tokenizer
from reference.byte_distributions import tiny


def test_evidence_is_the_sum_of_log_probabilities() -> None:
    """Evidence is the recomputed sum, also out of order, after rewinds, for a fresh instance and for ended rows."""
    models = [ByteModel(*tiny(3)), ByteModel(*tiny(5))]
    call = logitkit.chain("byte_ensemble(models=[])").bind(models[0], byte_tokenizer(), ["ab", "b a ab"])
    evidence = Evidence(models, call.prompts)
    ids = torch.cat([call.prompts.ids, torch.tensor([[97, 32, 98], [98, 98, 97]])], dim=1)
    want = torch.zeros(2, 2)
    for m, model in enumerate(models):
        for row, prompt in enumerate((b"ab", b"b a ab")):
            tail = bytes(ids[row, 6:].tolist())
            want[m, row] = sum(float(model.logp([prompt + tail[:k]])[0, tail[k]]) for k in range(3))
    for length, order in ((9, [0, 1]), (7, [0, 1]), (9, [1, 0]), (8, [1]), (9, [0])):
        got = evidence(ids[order, :length])
        fresh = Evidence(models, call.prompts)(ids[order, :length])
        torch.testing.assert_close(got, fresh, rtol=0, atol=1e-9)
        if length == 9:
            torch.testing.assert_close(got.float(), want[:, order])
    assert not evidence(torch.cat([ids, torch.full((2, 1), 256)], dim=1)).any()
    with pytest.raises(PromptError):
        evidence(ids + 1)
