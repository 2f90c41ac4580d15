"""Alignments by token bytes: worked examples, and comparison with an exhaustive search."""

from __future__ import annotations

from typing import Any

from alignments import sides, token
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from logitkit.processors.alignment import AlignmentVocabulary, Match, align
from logitkit.processors.alignment.matching import distance_bounds, nearest_targets
from logitkit.processors.tokens import Vocabulary

TEXT = st.text("abcAé 1", min_size=1, max_size=7).map(str.encode)


def test_a_merged_token_by_hand() -> None:
    """Without "the" in the main vocabulary, `exact` has no token, `gac` "t", `mined` the letter of lowest id."""
    helper, main = sides()
    the = token(helper, b"the")
    assert align("exact", helper, main).matches[the] == Match.NONE
    gac, mined = align("gac", helper, main), align("mined", helper, main)
    assert gac.targets[the, 0] == token(main, b"t") and gac.matches[the] == Match.PARTIAL
    assert mined.targets[the, 0] == min(token(main, letter) for letter in (b"t", b"h", b"e"))
    assert gac.coverage() == {"exact": 257, "partial": 12, "none": 0, "special": 51}


def test_the_reverse_map_by_hand() -> None:
    """For `unite`, each main token, also the end token, has a helper token whose logit is used for it."""
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
    alignment = align("mined", helper, main)
    nearest = {
        text: main.vocabulary.token_bytes[alignment.targets[token(helper, text), 0]]
        for text in (b"The", b" the", b"kitten")
    }
    assert nearest == {b"The": b"The", b" the": b"the", b"kitten": b"mitten"}


@given(st.lists(TEXT, min_size=1, max_size=12), st.lists(TEXT, min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_the_nearest_is_the_first_at_the_least_distance(sources: list[bytes], targets: list[bytes]) -> None:
    """The nearest target equals that of an exhaustive search, with computed and with loose distance bounds."""
    want = [
        min(range(len(targets)), key=lambda place: (Levenshtein.distance(source, targets[place]), place))
        for source in sources
    ]
    assert nearest_targets(sources, distance_bounds(sources, set(targets)), targets).tolist() == want
    assert nearest_targets(sources, [99] * len(sources), targets).tolist() == want


def test_the_nearest_over_a_whole_vocabulary() -> None:
    """Over whole vocabularies, `mined` equals an exhaustive search."""
    helper, main = sides("sentencepiece")
    for source, target in ((helper, main), (main, helper)):
        alignment = align("mined", source, target)
        for number in alignment.matches.eq(Match.PARTIAL).nonzero()[:, 0].tolist():
            text = source.vocabulary.token_bytes[number] or b""
            distance = {
                word: Levenshtein.distance(text, target.vocabulary.token_bytes[word] or b"")
                for word in target.text_tokens()
            }
            assert int(alignment.targets[number, 0]) == min(distance, key=lambda word: (distance[word], word))
