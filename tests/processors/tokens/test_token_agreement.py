"""Which ids two models share: paddings, added tokens, other notations of the same bytes, other tokenizers."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from logitkit.errors import ModelError
from logitkit.processors.tokens import TokenAgreement
from logitkit.registry.laws import foreign_tokenizer, tiny_tokenizer


def of_width(width: int) -> Any:
    """Return a configuration that states this number of logits."""
    config = SimpleNamespace(vocab_size=width)
    config.get_text_config = lambda decoder: config
    return SimpleNamespace(config=config)


def with_added(*tokens: str, special: bool = False) -> Any:
    """Return the tiny tokenizer of 259 tokens with further ones from id 259 on."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_tokens([AddedToken(token, special=special) for token in tokens])
    return tokenizer


def shared(first: tuple[int, Any], second: tuple[int, Any]) -> TokenAgreement:
    """Return the agreement of two models, each given as width and tokenizer."""
    return TokenAgreement.of((of_width(first[0]), first[1]), (of_width(second[0]), second[1]))


def unshared(agreement: TokenAgreement) -> list[int]:
    """Return the ids that are not shared."""
    return (~agreement.shared).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("other", [None, tiny_tokenizer(), copy.deepcopy(tiny_tokenizer())])
def test_two_paddings_share_the_narrower_width(other: Any) -> None:
    """Ids 272 to 279 exist in one model only; the padding that both have stays as it is."""
    for widths in ((272, 280), (280, 272)):
        agreement = shared((widths[0], tiny_tokenizer()), (widths[1], other))
        assert unshared(agreement) == list(range(272, 280))
        assert agreement.conflict is None and not agreement.lacking and agreement.same_text


def test_an_added_token_is_not_shared_with_padding() -> None:
    """Id 259 is a token for one tokenizer and padding for the other, in both directions."""
    agreement = shared((272, with_added("<tool>")), (280, tiny_tokenizer()))
    assert unshared(agreement) == [259, *range(272, 280)]
    assert agreement.lacking == {259: "<tool>"} and agreement.same_text and not agreement.complete
    agreement = shared((280, tiny_tokenizer()), (272, with_added("<tool>")))
    assert unshared(agreement) == [259, *range(272, 280)] and not agreement.lacking


def test_a_token_beyond_the_width_of_its_model_is_not_lacking() -> None:
    """A model of 259 logits cannot write its tokenizer's id 259, so nothing is lost to the second model."""
    agreement = shared((259, with_added("<tool>")), (259, tiny_tokenizer()))
    assert agreement.complete and not agreement.lacking


@pytest.mark.parametrize("special", [False, True])
def test_other_added_tokens_of_one_id_are_impossible_not_refused(special: bool) -> None:
    """A reserved token that a fine-tune renamed stands for no bytes of text in either model."""
    agreement = shared((272, with_added("<a>", "<b>")), (272, with_added("<a>", "<c>", special=special)))
    assert unshared(agreement) == [260] and agreement.conflict is None and agreement.lacking == {260: "<b>"}


def test_an_added_token_that_only_one_tokenizer_calls_special_is_shared() -> None:
    """Two models agree on an id if the token spells the same text in both."""
    assert shared((272, with_added("<a>")), (272, with_added("<a>", special=True))).complete


def test_other_bytes_under_one_id_are_a_conflict() -> None:
    """The error names the id, and the way out of the caller."""
    agreement = shared((272, tiny_tokenizer()), (300, foreign_tokenizer()))
    assert agreement.conflict == 0 and not agreement.same_text
    with pytest.raises(ModelError, match=r"cascade: model 'big' must have the tokenizer .* id 0; use bytes"):
        agreement.check("cascade", "big", way_out="use bytes")


def test_an_added_token_in_the_place_of_text_is_a_conflict() -> None:
    """Id 256 is a merge in one tokenizer, which stands for text, and a special token in the other."""
    vocabulary = {token: number for token, number in tiny_tokenizer().get_vocab().items() if number < 256}
    inner = Tokenizer(models.BPE(vocab=vocabulary | {"th": 256}, merges=[("t", "h")]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    assert shared((272, PreTrainedTokenizerFast(tokenizer_object=inner)), (272, tiny_tokenizer())).conflict == 256


def sentencepiece(marker: str) -> Any:
    """Return a tokenizer of three tokens: a space, which it writes as ``marker``, ``a`` and ``b``."""
    inner = Tokenizer(models.WordLevel({marker: 0, "a": 1, "b": 2}, unk_token="b"))
    if marker == "Ġ":
        inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    else:
        inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def test_other_notations_of_the_same_bytes_are_shared() -> None:
    """The space is written with two markers; the bytes decide."""
    assert shared((3, sentencepiece("Ġ")), (3, sentencepiece("▁"))).complete


def test_a_slow_tokenizer_is_compared_by_its_texts() -> None:
    """Only the vocabulary and the added tokens are asked of it."""

    class Slow:
        added_tokens_decoder: dict[int, str] = {}  # noqa: RUF012

        def get_vocab(self) -> dict[str, int]:
            return {"a": 0, "b": 1}

        def __len__(self) -> int:
            return 2

    class Other(Slow):
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0, "c": 1}

    assert shared((2, Slow()), (2, Slow())).complete
    assert shared((2, Slow()), (2, Other())).conflict == 1


def test_a_longer_learned_vocabulary_writes_other_ids() -> None:
    """The ids of bytes agree, but a text has other ids once there are merges: ``same_text`` is False."""
    vocabulary = {token: number for token, number in tiny_tokenizer().get_vocab().items() if number < 256}

    def bpe(merges: list[tuple[str, str]]) -> Any:
        words = vocabulary | {"".join(pair): 256 + place for place, pair in enumerate(merges)}
        inner = Tokenizer(models.BPE(vocab=words, merges=merges))
        inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        return PreTrainedTokenizerFast(tokenizer_object=inner)

    agreement = shared((256, bpe([])), (257, bpe([("t", "h")])))
    assert agreement.conflict is None and unshared(agreement) == [256] and not agreement.same_text


def test_two_tokenizers_are_compared_once() -> None:
    """A second bind finds the agreement; another token or width makes another one."""
    first, second = with_added("<a>"), with_added("<b>")
    agreement = shared((272, first), (280, second))
    assert shared((272, first), (280, second)) is agreement
    assert unshared(shared((272, first), (272, second))) == [259]
    first.add_tokens(["<c>"])
    assert shared((272, first), (280, second)).lacking == {259: "<a>", 260: "<c>"}
