"""Tables of a tokenizer: what a file gives equals what is computed, and no other file is taken for it."""

from __future__ import annotations

import copy
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from tokenizers import Tokenizer

from logitkit.processors.byte_level.covers import Covers
from logitkit.processors.tokens import Vocabulary, tokenizer_tables
from logitkit.processors.tokens.plain_encoder import plain_encoder
from logitkit.processors.tokens.tokenizer_description import tokenizer_cache
from logitkit.processors.tokens.tokenizer_tables import TokenizerTables
from logitkit.registry.laws import foreign_tokenizer, tiny_tokenizer
from reference.byte_covers import random_tokenizer


@pytest.fixture(autouse=True)
def every_size_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small vocabularies have files, too."""
    monkeypatch.setattr(tokenizer_tables, "FEWEST_IDS", 0)


def built(tokenizer: Any, folder: Path | None) -> tuple[Vocabulary, Covers]:
    """Return the vocabulary and the covers of a tokenizer with nothing in memory, as a new process has them."""
    tokenizer_cache(tokenizer).clear()
    tables = TokenizerTables(tokenizer, 300, folder)
    vocabulary = Vocabulary.of(tokenizer, 300, tables=tables)
    return vocabulary, Covers.of(tokenizer, vocabulary, tables=tables)


def the_file(folder: Path) -> Path:
    """Return the only file of a folder."""
    (file,) = folder.iterdir()
    return file


def assert_same(one: tuple[Vocabulary, Covers], other: tuple[Vocabulary, Covers], seed: int = 0) -> None:
    """Compare all fields of the vocabularies, and the successors behind random allowed tokens."""
    assert vars(one[0]) | {"ids_of": 0} == vars(other[0]) | {"ids_of": 0}
    assert one[1].trie.ids.tolist() == other[1].trie.ids.tolist()
    choose, context = random.Random(seed), ()
    for _ in range(8):
        allowed = np.flatnonzero(one[1].rule.allowed(context, np.arange(300)))
        assert allowed.tolist() == np.flatnonzero(other[1].rule.allowed(context, np.arange(300))).tolist()
        assert one[1].rule.may_end(context) == other[1].rule.may_end(context)
        if not len(allowed):
            break
        context = one[1].rule.extend(context, int(choose.choice(allowed.tolist())))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), split=st.booleans())
def test_a_file_gives_what_is_computed(seed: int, split: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    """On random tokenizers, the vocabulary and the rules from a file are those that are computed."""
    folder, tokenizer = tmp_path_factory.mktemp("tables"), random_tokenizer(seed, split=split)
    computed, first = built(tokenizer, None), built(tokenizer, folder)
    assert_same(computed, first, seed)
    assert_same(computed, built(tokenizer, folder), seed)


def test_a_file_saves_the_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file, the description of the tokenizer is not even parsed, and the file is not written again."""
    want = built(foreign_tokenizer(), tmp_path)
    before = the_file(tmp_path).stat().st_mtime_ns
    monkeypatch.setattr(tokenizer_tables, "description", lambda _: pytest.fail("parsed"))
    assert_same(want, built(foreign_tokenizer(), tmp_path))
    assert the_file(tmp_path).stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "foreign", "folder"])
def test_a_damaged_file_is_replaced_with_a_warning(tmp_path: Path, damage: str) -> None:
    """An empty, shortened, changed or foreign file is reported, computed again and replaced; a folder is left."""
    want = built(foreign_tokenizer(), tmp_path)
    file = the_file(tmp_path)
    content = file.read_bytes()
    middle = len(content) // 2
    file.unlink()
    if damage == "folder":
        file.mkdir()
        assert_same(want, built(foreign_tokenizer(), tmp_path))
        return
    changed = {
        "empty": b"",
        "short": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "foreign": save({"checksum": np.zeros(1, dtype=np.uint32)}),
    }
    file.write_bytes(changed[damage])
    with pytest.warns(UserWarning, match="must hold the tables of a tokenizer, got .*; they are computed again"):
        assert_same(want, built(foreign_tokenizer(), tmp_path))
    assert file.read_bytes() == content
    assert_same(want, built(foreign_tokenizer(), tmp_path))


def test_what_a_file_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding and truncation share a file; other tokens, another size and other code have a file of their own."""
    tokenizer = copy.deepcopy(foreign_tokenizer())
    built(tokenizer, tmp_path)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding()
    built(tokenizer, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    tokenizer.add_tokens(["<tool>"])
    built(tokenizer, tmp_path)
    TokenizerTables(tokenizer, 301, tmp_path).value("ids", lambda: [0, 0])
    tables = TokenizerTables(tokenizer, 301, tmp_path)
    Vocabulary.of(tokenizer, 301, tables=tables)
    tables.save()
    monkeypatch.setattr(tokenizer_tables, "_code_digest", lambda: "other code")
    built(tokenizer, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_small_vocabularies_and_closed_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small vocabulary writes no file, and a folder that cannot be made does no harm."""
    (tmp_path / "file").touch()
    built(tiny_tokenizer(), tmp_path / "file" / "folder")
    monkeypatch.setattr(tokenizer_tables, "FEWEST_IDS", 4096)
    built(tiny_tokenizer(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_several_at_once(tmp_path: Path) -> None:
    """Several writers and readers at once have the same rules, and leave one whole file."""
    tokenizers = [foreign_tokenizer() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda tokenizer: built(tokenizer, tmp_path), tokenizers))
    for result in results[1:]:
        assert_same(results[0], result)
    assert_same(results[0], built(foreign_tokenizer(), tmp_path))
    assert the_file(tmp_path).suffix == ".safetensors"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), text=st.text("ab <s>/é", max_size=12))
def test_the_plain_encoder_shares_only_the_model(seed: int, text: str) -> None:
    """It encodes like a copy of the whole tokenizer without special tokens, whatever is added to the original later."""
    tokenizer = random_tokenizer(seed)
    tokenizer.add_tokens(["<s>a"])
    tables = TokenizerTables(tokenizer, 400)
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.encode_special_tokens = True
    encoder = plain_encoder(tables)
    tokenizer.backend_tokenizer.enable_truncation(1)
    tokenizer.add_tokens(["ab"])
    assert encoder.encode(text).ids == copy.encode(text, add_special_tokens=False).ids
