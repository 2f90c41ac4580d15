"""The study of the laws of other libraries: the page agrees with the measurement and explains every failure."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch

from logitkit.errors import PluginError
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import laws_of_others
from studies.known_violations import REASONS
from studies.laws_of_others import OTHERS, TRANSFORMERS, Other, page, table

PAGE = Path(__file__).parents[2] / "docs" / "laws_of_others.md"
CLIPS = Other(module=TRANSFORMERS, name="InfNanRemoveLogitsProcessor")


@pytest.mark.slow
def test_the_page_is_what_is_measured() -> None:
    """The part on transformers agrees with a new measurement; ``studies.laws_of_others`` writes the page."""
    tiny_model.cache_clear()  # other tests may have left hooks on it, which cannot be pickled
    assert table(tuple(other for other in OTHERS if other.module == TRANSFORMERS)) in PAGE.read_text()


def test_generate_hides_padding_from_the_repetition_penalty_alone() -> None:
    """The reasons on the page: the penalty that `generate` builds skips padding, its n-gram processor counts it."""
    pad = tiny_tokenizer().pad_token_id
    ids = torch.tensor([[pad, pad, 97, 98]])
    asked = {"max_new_tokens": 1, "do_sample": False, "return_dict_in_generate": True, "output_scores": True}

    def score_of_padding(**setting: Any) -> float:
        output = tiny_model().generate(input_ids=ids, attention_mask=(ids != pad).long(), **setting, **asked)
        return float(output.scores[0][0, pad])

    assert score_of_padding(repetition_penalty=5.0) == score_of_padding()
    assert score_of_padding(no_repeat_ngram_size=1) == -torch.inf
    assert "builds it from `no_repeat_ngram_size`" in PAGE.read_text()


def test_a_failure_is_shown_with_its_reason() -> None:
    """The table counts the laws that a processor keeps and shows the reason for a broken one."""
    assert "| 20 of 25 | `keeps_masked_tokens_masked`: replaces -inf by the lowest finite number" in table((CLIPS,))


def test_a_failure_without_a_reason_is_refused(monkeypatch: Any) -> None:
    """The error names the processor and the law."""
    monkeypatch.setattr(laws_of_others, "REASONS", {})
    with pytest.raises(PluginError, match=r"got no reason for InfNan\w+ agrees_across_dtypes"):
        table((CLIPS,))


def test_a_reason_for_what_is_kept_is_refused(monkeypatch: Any) -> None:
    """A reason for a law that the processor keeps is an error, so the page holds no outdated reason."""
    reasons = {**REASONS[CLIPS.name], "forgets": "no"}
    monkeypatch.setattr(laws_of_others, "REASONS", {CLIPS.name: reasons})
    with pytest.raises(PluginError, match=r"a reason for a law that holds: InfNan\w+ forgets"):
        table((CLIPS,))


def test_a_library_that_is_not_installed_keeps_its_table(monkeypatch: Any) -> None:
    """Without the library its earlier table stays, marked once as earlier; without that table it is an error."""

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(laws_of_others, "version", version)
    once = page(PAGE.read_text())
    assert once.count(laws_of_others.EARLIER) == 2
    assert page(once) == once
    with pytest.raises(PackageNotFoundError):
        page()
