"""N-gram tables: files, refused values and refused tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from logitkit.errors import FileFormatError, ModelError, ParameterError
from logitkit.processors.ngram import NgramTable, Smoothing, TableVocabulary
from logitkit.registry.laws import tiny_tokenizer
from reference.ngrams import counts_of

DOCUMENTS = [[1, 2, 1, 2, 3], [2, 1]]


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    """A saved and loaded table has the same arrays, special ids, smoothing, fingerprint and sources."""
    table = NgramTable.train(["the other text", "a text of its own"], tiny_tokenizer(), smoothing="witten-bell")
    table.save(tmp_path / "t.safetensors")
    again = NgramTable.load(tmp_path / "t.safetensors")
    assert counts_of(again) == counts_of(table)
    assert again.fingerprint == table.fingerprint and again.sources == table.sources
    assert again.special.tolist() == table.special.tolist() == TableVocabulary.of(tiny_tokenizer()).special
    assert repr(again) == repr(table) and again.smoothing.as_data() == table.smoothing.as_data()
    rows, tokens = torch.randint(0, 256, (50, 2)), torch.randint(0, 256, (50,))
    torch.testing.assert_close(again.probability(rows, tokens), table.probability(rows, tokens))
    assert [path.name for path in tmp_path.iterdir()] == ["t.safetensors"]


def test_a_bad_file_is_refused(tmp_path: Path) -> None:
    """A missing, truncated or foreign file, another version, and mismatched arrays raise an error each."""
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    NgramTable.count(DOCUMENTS, size=5).save(good)
    with pytest.raises(FileFormatError, match="must be a file"):
        NgramTable.load(bad)
    for content in (good.read_bytes()[:-40], good.read_bytes()[:30], b"", b"\x80\x04cos\nsystem\n."):
        bad.write_bytes(content)
        with pytest.raises(FileFormatError, match="must be a whole safetensors file"):
            NgramTable.load(bad)
    save_file({"x": torch.zeros(2)}, str(bad))
    with pytest.raises(FileFormatError, match="got another safetensors file"):
        NgramTable.load(bad)
    about: dict[str, Any] = {"version": 2}
    save_file({"x": torch.zeros(2)}, str(bad), metadata={"format": "logitkit n-gram table", "about": json.dumps(about)})
    with pytest.raises(FileFormatError, match="must be of version 1, got 2"):
        NgramTable.load(bad)
    about = {"version": 1, "orders": 1, "counted": True}
    arrays = {"keys.1": torch.arange(3), "counts.1": torch.ones(2), "starts.1": torch.tensor([0, 3])}
    save_file(arrays, str(bad), metadata={"format": "logitkit n-gram table", "about": json.dumps(about)})
    with pytest.raises(FileFormatError, match="do not fit"):
        NgramTable.load(bad)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: NgramTable.count(DOCUMENTS, size=5, orders=6), "orders must be a whole number from 1 to 5, got 6"),
        (lambda: NgramTable.count([[], []], size=5), "documents must be at least one token"),
        (lambda: NgramTable.count([[3, 3]], size=5, special=[3]), "documents must be at least one token"),
        (lambda: NgramTable.count(DOCUMENTS, size=5, smoothing="good-turing"), "name must be one of 'add-k'"),
        (lambda: Smoothing(name="mle", strength=1.0), "None for mle"),
        (lambda: Smoothing(name="kneser-ney", strength=1.5), "a discount of 0 to 1"),
        (lambda: Smoothing(name="add-k", strength=0.0), "a pseudo-count > 0"),
    ],
)
def test_bad_values_are_refused(make: Any, says: str) -> None:
    """A refused value is named with its parameter and rule."""
    with pytest.raises(ParameterError, match=says):
        make()


def test_another_tokenizer_is_refused() -> None:
    """A table whose ids come from no tokenizer is refused."""
    with pytest.raises(ModelError, match="must be trained with the generating model's tokenizer"):
        NgramTable.count(DOCUMENTS, size=5).check_tokenizer(tiny_tokenizer(), "ngram_style")
