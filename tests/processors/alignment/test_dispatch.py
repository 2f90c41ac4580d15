"""Properties of every alignment method, and the cache of alignments."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from alignments import HELPERS, sides
from safetensors import SafetensorError
from safetensors.torch import save_file

from logitkit.errors import UnknownNameError
from logitkit.processors.alignment import METHODS, Match, align
from logitkit.processors.alignment import alignment as alignment_module


@pytest.mark.parametrize("style", HELPERS)
@pytest.mark.parametrize("method", METHODS)
def test_letters_and_end_tokens(method: str, style: str) -> None:
    """A letter is aligned to that letter, the end token to the end token, and other special tokens to nothing."""
    helper, main = sides(style)
    alignment = align(method, helper, main)
    matrix = alignment.matrix.to_dense()
    assert matrix.shape == (320, 272)
    for letter in (b"a", b" ", b"\n", b"\xc3"):
        for number in helper.vocabulary.ids_of[letter]:
            want = torch.zeros(272)
            want[main.vocabulary.ids_of[letter][0]] = 1
            assert torch.equal(matrix[number], want)
    assert matrix[2, main.end_tokens[0]] == 1 and matrix[2].sum() == 1 and alignment.matches[2] == Match.EXACT
    assert matrix[:2].sum() == 0 and matrix[300:].sum() == 0
    assert alignment.matches[1] == Match.SPECIAL and alignment.matches[310] == Match.SPECIAL
    assert matrix[:, 257].sum() == 1 and matrix[:, [256, 258]].sum() == 0 and matrix[:, 259:].sum() == 0


def test_the_cache_is_keyed_by_both_tokenizers(tmp_path: Path) -> None:
    """An alignment is built once for each pair of vocabularies; damaged files are replaced, small maps not cached."""
    align("mined", *sides(), cache=tmp_path)
    assert not list(tmp_path.iterdir())
    cached = {"cache": tmp_path, "cached_pairs": 0}
    alignment = align("mined", *sides(), **cached)
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    assert torch.equal(align("mined", *sides(), **cached).targets, alignment.targets)
    assert file.stat().st_mtime_ns == before
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(align("mined", *sides(), **cached).targets, alignment.targets)
    align("mined", *sides("sentencepiece"), **cached)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_unknown_method_is_refused() -> None:
    """The error for an unknown method suggests the nearest name."""
    with pytest.raises(UnknownNameError, match="did you mean 'mined'"):
        align("minedd", *sides())


@pytest.mark.parametrize("fault", ["read-only", "full", "a file", "a folder", "unreadable", "foreign", "no tensors"])
def test_a_faulty_cache_fails_no_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """An alignment is built where its cached file cannot be read, and returned where it cannot be written."""
    folder = tmp_path / "cache"
    expected = align("mined", *sides(), cache=folder, cached_pairs=0)
    (file,) = folder.iterdir()

    def refuse(*args: object, **settings: object) -> None:
        raise {"read-only": PermissionError(13), "full": SafetensorError("No space left on device")}.get(
            fault, OSError()
        )

    if fault in ("read-only", "full"):
        file.unlink()
        monkeypatch.setattr(alignment_module, "save_tensors", refuse)
    elif fault == "a file":
        file.unlink()
        folder.rmdir()
        folder.write_text("no folder")
    elif fault == "a folder":
        file.unlink()
        file.mkdir()
    elif fault == "unreadable":
        monkeypatch.setattr(Path, "is_file", refuse)
    else:
        tensors = (
            {}
            if fault == "no tensors"
            else {"targets": torch.zeros(()), "weights": torch.zeros(()), "matches": torch.zeros(())}
        )
        facts = "[" * 100_000 if fault == "no tensors" else "[1]"
        save_file(tensors, file, metadata={"logitkit": facts})
    again = align("mined", *sides(), cache=folder, cached_pairs=0)
    assert torch.equal(again.targets, expected.targets) and torch.equal(again.weights, expected.weights)
