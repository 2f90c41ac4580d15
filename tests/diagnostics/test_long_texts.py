"""Diagnostics cut long texts into windows, so the warning of a tokenizer about its length does not apply."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import transformers

from logitkit.diagnostics import compare, token_statistics
from logitkit.diagnostics.membership import token_counts
from logitkit.registry.laws import tiny_model, tiny_tokenizer

TEXT = "a text of many words " * 4


@pytest.mark.parametrize(
    "read",
    [
        lambda tokenizer: compare(tiny_model(), tokenizer, tiny_model(1), TEXT),
        lambda tokenizer: token_statistics(tiny_model(), tokenizer, TEXT),
        lambda tokenizer: token_counts(tokenizer, [TEXT], 300),
    ],
)
def test_a_long_text_gives_no_warning_of_the_tokenizer(
    read: Callable[[Any], object], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer of four tokens at most reads a longer text; without `verbose=False` it would warn."""
    monkeypatch.setattr(transformers.utils.logging._get_library_root_logger(), "propagate", True)
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.model_max_length, tokenizer.deprecation_warnings = 4, {}  # a tokenizer warns once
    read(tokenizer)
    assert "longer than the specified maximum" not in caplog.text
    tokenizer(TEXT)
    assert "longer than the specified maximum" in caplog.text
