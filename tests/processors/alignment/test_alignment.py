"""Alignments: by hand, compared with a slow search, their files, and alignments of other vocabularies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from foreign import foreign_model, foreign_tokenizer, sentencepiece_tokenizer
from logitkit.errors import FileFormatError, ModelError, UnknownNameError
from logitkit.processors.alignment import METHODS, Alignment, AlignmentVocabulary, Match, align
from logitkit.processors.alignment.matching import _distance_bounds, _nearest
from logitkit.processors.tokens import Vocabulary
from logitkit.registry.laws import tiny_model, tiny_tokenizer

HELPERS = {"byte-level": foreign_tokenizer, "sentencepiece": sentencepiece_tokenizer}


def sides(style: str = "byte-level") -> tuple[AlignmentVocabulary, AlignmentVocabulary]:
    """The vocabularies of a helper with merged tokens and of a main model with single bytes."""
    return AlignmentVocabulary.of(foreign_model(), HELPERS[style]()), AlignmentVocabulary.of(
        tiny_model(), tiny_tokenizer()
    )


def token(side: AlignmentVocabulary, text: bytes) -> int:
    """The id of the token with these bytes, the last of several."""
    return side.vocabulary.ids_of[text][-1]


@pytest.mark.parametrize("style", HELPERS)
@pytest.mark.parametrize("method", METHODS)
def test_letters_and_end_tokens(method: str, style: str) -> None:
    """A letter is aligned to that letter, the end token to the end token, and other special tokens to nothing."""
    helper, main = sides(style)
    made = align(method, helper, main)
    matrix = made.matrix.to_dense()
    assert matrix.shape == (320, 272)
    for letter in (b"a", b" ", b"\n", b"\xc3"):
        for spelled in helper.vocabulary.ids_of[letter]:
            want = torch.zeros(272)
            want[main.vocabulary.ids_of[letter][0]] = 1
            assert torch.equal(matrix[spelled], want)
    assert matrix[2, main.end_tokens[0]] == 1 and matrix[2].sum() == 1 and made.matches[2] == Match.EXACT
    assert matrix[:2].sum() == 0 and matrix[300:].sum() == 0
    assert made.matches[1] == Match.SPECIAL and made.matches[310] == Match.SPECIAL
    assert matrix[:, 257].sum() == 1 and matrix[:, [256, 258]].sum() == 0 and matrix[:, 259:].sum() == 0


def test_a_merged_token_by_hand() -> None:
    """Over single bytes, "the" is lost by `exact`, "t" by `gac`, and the letter of the lowest id by `mined`."""
    helper, main = sides()
    the = token(helper, b"the")
    assert align("exact", helper, main).matches[the] == Match.NONE
    gac, mined = align("gac", helper, main), align("mined", helper, main)
    assert gac.targets[the, 0] == token(main, b"t") and gac.matches[the] == Match.PARTIAL
    assert mined.targets[the, 0] == min(token(main, letter) for letter in (b"t", b"h", b"e"))
    assert gac.coverage() == {"exact": 257, "partial": 12, "none": 0, "special": 51}


def test_the_reverse_map_by_hand() -> None:
    """For `unite`, each main token has a helper token whose logit stands for it, the end token included."""
    helper, main = sides()
    back = align("unite", helper, main).reverse
    assert back is not None and back[token(main, b"t")] == token(helper, b"t") and back[257] == 2
    assert back[256] == back[258] == back[270] == -1
    there = align("unite", main, helper).reverse
    assert there is not None and there[token(helper, b"the")] == token(main, b"t")


def words(*texts: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of single bytes and of words that no merge produces."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate([*letters, *texts])}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.add_special_tokens([AddedToken("<end>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")


def of(tokenizer: Any) -> AlignmentVocabulary:
    """The vocabulary of a tokenizer without a model."""
    vocabulary = Vocabulary.of(tokenizer)
    return AlignmentVocabulary(tokenizer=tokenizer, vocabulary=vocabulary, end_tokens=(tokenizer.eos_token_id,))


def test_case_and_spaces_are_kept() -> None:
    """Upper and lower case and leading spaces differ; of tokens at the same edit distance, the lowest id is taken."""
    helper, main = of(words("The", "Ġthe", "kitten", "12ab")), of(words("the", "ĠThe", "The", "mitten", "sitting"))
    made = align("mined", helper, main)
    found = {
        text: main.vocabulary.token_bytes[made.targets[token(helper, text), 0]] for text in (b"The", b" the", b"kitten")
    }
    assert found == {b"The": b"The", b" the": b"the", b"kitten": b"mitten"}


TEXT = st.text("abcAé 1", min_size=1, max_size=7).map(str.encode)


@given(st.lists(TEXT, min_size=1, max_size=12), st.lists(TEXT, min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_the_nearest_is_the_first_at_the_least_distance(sources: list[bytes], targets: list[bytes]) -> None:
    """The nearest target is that of trying every pair, with the computed distance bounds and with loose ones."""
    want = [
        min(range(len(targets)), key=lambda place: (Levenshtein.distance(source, targets[place]), place))
        for source in sources
    ]
    assert _nearest(sources, _distance_bounds(sources, set(targets)), targets).tolist() == want
    assert _nearest(sources, [99] * len(sources), targets).tolist() == want


def test_the_nearest_over_a_whole_vocabulary() -> None:
    """Over whole vocabularies, `mined` equals trying every pair of tokens."""
    helper, main = sides("sentencepiece")
    made, back = align("mined", helper, main), align("mined", main, helper)
    for source, target, found in ((helper, main, made), (main, helper, back)):
        for number in found.matches.eq(Match.PARTIAL).nonzero()[:, 0].tolist():
            spelled = source.vocabulary.token_bytes[number] or b""
            distance = {
                word: Levenshtein.distance(spelled, target.vocabulary.token_bytes[word] or b"")
                for word in target.text_tokens()
            }
            assert int(found.targets[number, 0]) == min(distance, key=lambda word: (distance[word], word))


@pytest.mark.parametrize("method", METHODS)
def test_translation_is_the_product_with_the_matrix(method: str) -> None:
    """Probabilities of all tokens, or of some tokens by id, are translated as by the matrix."""
    made = align(method, *sides())
    p = torch.rand(3, 320).softmax(-1)
    torch.testing.assert_close(made.translate(p), p @ made.matrix.to_dense())
    best, ids = p.topk(10)
    some = torch.zeros_like(p).scatter_(1, ids, best)
    torch.testing.assert_close(made.translate(best, ids), some @ made.matrix.to_dense())
    assert bool((made.translate(p).sum(-1) <= 1 + 1e-5).all())


def test_rotated_embeddings_are_aligned() -> None:
    """Where the helper's embeddings are the main model's, rotated, a token is aligned to the one of its own vector."""
    torch.manual_seed(0)
    helper, main = sides()
    table, turn = torch.randn(272, 16), torch.linalg.qr(torch.randn(16, 16))[0]
    theirs = torch.randn(320, 16)
    for text, ids in main.vocabulary.ids_of.items():
        theirs[token(helper, text)] = table[ids[0]] @ turn
    the, like = token(helper, b"the"), token(main, b"q")
    theirs[the] = table[like] @ turn
    made = align(
        "embedding",
        AlignmentVocabulary(
            tokenizer=helper.tokenizer, vocabulary=helper.vocabulary, end_tokens=helper.end_tokens, embeddings=theirs
        ),
        AlignmentVocabulary(
            tokenizer=main.tokenizer, vocabulary=main.vocabulary, end_tokens=main.end_tokens, embeddings=table
        ),
    )
    assert made.targets[the, 0] == like and made.weights[the, 0] == made.weights[the].max()
    torch.testing.assert_close(made.weights.sum(-1)[2:271], torch.ones(269))


def test_a_file_holds_the_alignment(tmp_path: Path) -> None:
    """A file holds the whole alignment, and no temporary file is left beside it."""
    for method in METHODS:
        made = align(method, *sides())
        made.save(tmp_path / "map.safetensors")
        read = Alignment.load(tmp_path / "map.safetensors")
        assert torch.equal(read.matrix.to_dense(), made.matrix.to_dense()) and read.coverage() == made.coverage()
        assert (read.method, read.main_size) == (made.method, made.main_size)
        assert (read.helper_fingerprint, read.main_fingerprint) == (made.helper_fingerprint, made.main_fingerprint)
        assert (read.reverse is None) == (made.reverse is None)
    assert [file.name for file in tmp_path.iterdir()] == ["map.safetensors"]


def test_the_cache_is_keyed_by_both_tokenizers(tmp_path: Path) -> None:
    """An alignment is built once for each pair of vocabularies; damaged files are replaced, small maps not cached."""
    align("mined", *sides(), cache=tmp_path)
    assert not list(tmp_path.iterdir())
    cached = {"cache": tmp_path, "cached_pairs": 0}
    made = align("mined", *sides(), **cached)
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    assert torch.equal(align("mined", *sides(), **cached).targets, made.targets)
    assert file.stat().st_mtime_ns == before
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(align("mined", *sides(), **cached).targets, made.targets)
    align("mined", *sides("sentencepiece"), **cached)
    assert len(list(tmp_path.iterdir())) == 2


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A file that is absent, truncated or has ids out of range is refused."""
    path = tmp_path / "map.safetensors"
    with pytest.raises(FileFormatError, match="must be a file of an alignment"):
        Alignment.load(path)
    made = align("gac", *sides())
    made.save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FileFormatError, match="build it again"):
        Alignment.load(path)
    made.targets[5] = 999
    made.save(path)
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
    """An alignment of another helper is refused; the error says which vocabulary differs."""
    made = align("gac", *sides())
    with pytest.raises(ModelError, match="core: alignment must be for these vocabularies, but its helper"):
        made.check(*sides("sentencepiece"), "core")


def test_an_unknown_method_is_refused() -> None:
    """The error for an unknown method suggests the nearest name."""
    with pytest.raises(UnknownNameError, match="did you mean 'mined'"):
        align("minedd", *sides())
