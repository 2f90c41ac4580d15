"""Models and tables that a chain names are loaded once for many calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import logitkit
from logitkit import models
from logitkit.errors import FileFormatError, UnknownNameError
from logitkit.processors.ngram import NgramTable
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.preloading import preload


def test_each_model_and_table_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two names, one of them given by the caller; later loads return the same objects."""
    asked: list[str] = []

    def load(name: str, *, like: Any) -> tuple[Any, Any]:
        asked.append(name)
        return tiny_model(1), tiny_tokenizer()

    monkeypatch.setattr(models, "load", load)
    table = tmp_path / "style.safetensors"
    NgramTable.train(["the sea"], tiny_tokenizer()).save(table)
    chain = logitkit.chain(f"dexperts(expert='a/a', antiexpert='b/b') | ngram_style(table={str(table)!r})")
    loaded = preload(chain, like=tiny_model(), known=["b/b"])
    assert asked == ["a/a"] and set(loaded.models) == {"a/a"} and set(loaded.tables) == {str(table)}
    assert loaded.load("a/a", like=tiny_model())[0] is tiny_model(1) and asked == ["a/a"]
    assert loaded.load("c/c", like=tiny_model()) and asked == ["a/a", "c/c"]


def test_what_cannot_be_loaded_is_named() -> None:
    """Before anything is generated."""
    with pytest.raises(UnknownNameError, match="nothing-like-this"):
        preload(logitkit.chain("cascade(large='nothing-like-this')"), like=tiny_model())
    with pytest.raises(FileFormatError, match=r"absent\.safetensors"):
        preload(logitkit.chain("ngram_style(table='absent.safetensors')"), like=tiny_model())
