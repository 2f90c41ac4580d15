"""The map of an alignment: translation, check and file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from alignments import sides
from safetensors.torch import save_file

from logitkit.errors import FileFormatError, ModelError
from logitkit.processors.alignment import METHODS, Alignment, align


@pytest.mark.parametrize("method", METHODS)
def test_translation_is_the_product_with_the_matrix(method: str) -> None:
    """Translation equals the product with the matrix, for all tokens and for some tokens by id."""
    alignment = align(method, *sides())
    p = torch.rand(3, 320).softmax(-1)
    torch.testing.assert_close(alignment.translate(p), p @ alignment.matrix.to_dense())
    best, ids = p.topk(10)
    some = torch.zeros_like(p).scatter_(1, ids, best)
    torch.testing.assert_close(alignment.translate(best, ids), some @ alignment.matrix.to_dense())
    assert bool((alignment.translate(p).sum(-1) <= 1 + 1e-5).all())


def test_a_file_holds_the_alignment(tmp_path: Path) -> None:
    """A file holds the whole alignment, and no temporary file is left beside it."""
    for method in METHODS:
        alignment = align(method, *sides())
        alignment.save(tmp_path / "map.safetensors")
        read = Alignment.load(tmp_path / "map.safetensors")
        assert (
            torch.equal(read.matrix.to_dense(), alignment.matrix.to_dense()) and read.coverage() == alignment.coverage()
        )
        assert (read.method, read.main_size) == (alignment.method, alignment.main_size)
        assert (read.helper_fingerprint, read.main_fingerprint) == (
            alignment.helper_fingerprint,
            alignment.main_fingerprint,
        )
        assert (read.reverse is None) == (alignment.reverse is None)
    assert [file.name for file in tmp_path.iterdir()] == ["map.safetensors"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A file that is absent, truncated or has ids out of range is refused."""
    path = tmp_path / "map.safetensors"
    with pytest.raises(FileFormatError, match="must be an alignment file"):
        Alignment.load(path)
    alignment = align("gac", *sides())
    alignment.save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FileFormatError, match="build it again"):
        Alignment.load(path)
    alignment.targets[5] = 999
    alignment.save(path)
    with pytest.raises(FileFormatError, match="a target is not one of 272 ids"):
        Alignment.load(path)


def test_files_of_another_version_are_refused(tmp_path: Path) -> None:
    """A file of another format version is refused by its version."""
    path = tmp_path / "map.safetensors"
    save_file({"targets": torch.zeros(1, 1)}, path, metadata={"logitkit": '{"format": 1}'})
    with pytest.raises(FileFormatError, match="format 2, got ValueError: format 1; build it again"):
        Alignment.load(path)


@pytest.mark.skipif(os.name != "posix", reason="permission bits are those of POSIX")
def test_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    """A saved alignment is readable by those whom the umask allows to read new files."""
    path = tmp_path / "new" / "map.safetensors"
    align("exact", *sides()).save(path)
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_other_vocabularies_are_refused() -> None:
    """An alignment of another helper is refused; the error names the vocabulary that differs."""
    alignment = align("gac", *sides())
    with pytest.raises(ModelError, match="core: alignment must be for these vocabularies, but its helper"):
        alignment.check(*sides("sentencepiece"), "core")
