"""Alignments by token bytes: worked examples, and comparison with an exhaustive search."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from unittest import mock

from alignments import sides, token
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fresh import ROOT
from logitkit.processors.alignment import AlignmentVocabulary, Match, align, bag_search, preference
from logitkit.processors.alignment.close_pairs import close_pairs
from logitkit.processors.alignment.nearest import is_whole, nearest_targets
from logitkit.processors.tokens import Vocabulary
from logitkit.processors.tokens.token_bytes import byte_alphabet

TEXT = st.text("abcAé 1", min_size=1, max_size=7).map(str.encode)


def test_a_merged_token_by_hand() -> None:
    """Without "the" in the main vocabulary, `exact` has no token, `gac` and `mined` "t", the nearest prefix."""
    helper, main = sides()
    the = token(helper, b"the")
    assert align("exact", helper, main).matches[the] == Match.NONE
    gac, mined = align("gac", helper, main), align("mined", helper, main)
    assert gac.targets[the, 0] == token(main, b"t") and gac.matches[the] == Match.PARTIAL
    assert mined.targets[the, 0] == token(main, b"t")
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
    """Upper and lower case and leading spaces differ; of tokens at the same distance, the longest prefix is taken."""
    helper, main = of(words("The", "Ġthe", "kitten", "12ab")), of(words("the", "ĠThe", "The", "mitten", "sitting"))
    alignment = align("mined", helper, main)
    nearest = {
        text: main.vocabulary.token_bytes[alignment.targets[token(helper, text), 0]]
        for text in (b"The", b" the", b"kitten")
    }
    assert nearest == {b"The": b"The", b" the": b" The", b"kitten": b"mitten"}


def shared_prefix(one: bytes, other: bytes) -> int:
    """The length of the longest common prefix."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def case_of(text: bytes) -> tuple[bool, bool, bool]:
    """Whether the first letter is a capital, and whether there are capitals and small letters."""
    letters = [letter for letter in text.decode(errors="ignore") if letter.isalpha()]
    capital = bool(letters) and letters[0].isupper()
    return capital, any(map(str.isupper, letters)), any(map(str.islower, letters))


def order(source: bytes, target: bytes) -> tuple[Any, ...]:
    """The rules of `logitkit.processors.alignment.preference`, spelled out; the least is the best."""
    return (
        Levenshtein.distance(source, target),
        not source.startswith(target),
        -shared_prefix(source, target),
        -shared_prefix(source.lower(), target.lower()),
        case_of(source) != case_of(target),
        source.startswith(b" ") != target.startswith(b" "),
    )


def best_of(source: str, *targets: str) -> str:
    """The target that is chosen for a source."""
    words = [target.encode() for target in targets]
    return targets[int(nearest_targets([source.encode()], words)[0])]


def test_ties_by_hand() -> None:
    """Ties: a prefix, the longest shared prefix, equal but for case, the same case, the same space, the lowest id."""
    assert best_of("FAILURE", "FILE", "FAIL") == "FAIL"
    assert best_of("travel", "travels", "trave") == "trave"
    assert best_of("The", "She", "the") == "the"
    assert best_of("cat", "Bat", "hat") == "hat"
    assert best_of("1", " ", "2") == "2"
    assert best_of("cat", "hat", "bat") == "hat"


def test_whole_characters_stay_whole() -> None:
    """A character is aligned to the whole token at distance 3, not to one of its own bytes at distance 2."""
    main = of(words("abc"))
    inner = Tokenizer(models.BPE(vocab={"".join(byte_letters("あ".encode())): 0, "a": 1, "<end>": 2}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    helper = of(PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>"))
    target = align("mined", helper, main).targets[token(helper, "あ".encode()), 0]
    assert is_whole(main.vocabulary.token_bytes[target] or b"")


def byte_letters(text: bytes) -> list[str]:
    """The letters that byte-level tokenizers write for bytes."""
    return [letter for byte in text for letter, number in byte_alphabet().items() if number == byte]


@given(st.lists(TEXT, min_size=1, max_size=12), st.lists(TEXT, min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_the_nearest_is_the_best_at_the_least_distance(sources: list[bytes], targets: list[bytes]) -> None:
    """The nearest target equals that of an exhaustive search, also with few columns and small blocks."""
    want = exhaustive(sources, targets)
    assert nearest_targets(sources, targets).tolist() == want
    for few in (1, 2, 10**6):  # pairs one by one, both ways, and whole blocks
        with mock.patch.multiple(bag_search, CELLS=20, FIRST=1, NEXT=1, OWN=2, SHARED=1, SMALL=0, FEW=few):
            assert nearest_targets(sources, targets).tolist() == want


@given(st.lists(TEXT, min_size=1, max_size=8), st.lists(TEXT, min_size=1, max_size=8), st.integers(28, 34))
@settings(max_examples=50, deadline=None)
def test_long_texts(sources: list[bytes], targets: list[bytes], length: int) -> None:
    """Prefixes are compared up to 32 bytes: a longer target that is a prefix of the source counts as no prefix."""
    sources = [b"x" * length + source for source in sources]
    targets = [b"x" * length + target for target in targets] + targets + [b"x" * length]
    assert nearest_targets(sources, targets).tolist() == exhaustive(sources, targets)


@given(st.lists(TEXT, max_size=12), st.lists(TEXT, max_size=12), st.sampled_from([1, 2]))
@settings(max_examples=100, deadline=None)
def test_close_pairs_are_all_found(sources: list[bytes], targets: list[bytes], most: int) -> None:
    """Joined hashes find each pair at a distance of 1 or 2, and no other pair, whichever side is the larger one."""
    want = []
    for (one, source), (other, target) in itertools.product(enumerate(sources), enumerate(targets)):
        distance = Levenshtein.distance(source, target)
        want += [(one, other, distance)] if distance <= most else []
    assert [tuple(map(int, pair)) for pair in zip(*close_pairs(sources, targets, most), strict=True)] == want


def test_a_close_pair_by_hand() -> None:
    """ "cat" and "hat" both leave "at"; "dog" and "do" differ by one deletion."""
    found = close_pairs([b"cat", b"dog"], [b"hat", b"do", b"house"], 1)
    assert [part.tolist() for part in found] == [[0, 1], [0, 1], [1, 1]]


def exhaustive(sources: list[bytes], targets: list[bytes]) -> list[int]:
    """The best target of each source, by comparing all of them."""

    def rank(source: bytes, place: int) -> tuple[Any, ...]:
        head = targets[place][: preference.COMPARED]
        rules = order(source[: preference.COMPARED], head)
        is_no_prefix = not source.startswith(targets[place]) or len(targets[place]) > preference.COMPARED
        cases = case_of(source) != case_of(targets[place]), source.startswith(b" ") != targets[place].startswith(b" ")
        return Levenshtein.distance(source, targets[place]), is_no_prefix, *rules[2:4], *cases, place

    return [min(range(len(targets)), key=lambda place: rank(source, place)) for source in sources]


def test_the_nearest_over_a_whole_vocabulary() -> None:
    """Over whole vocabularies, `mined` equals an exhaustive search; whole characters have whole tokens only."""
    helper, main = sides("sentencepiece")
    for source, target in ((helper, main), (main, helper)):
        alignment = align("mined", source, target)
        spelled = {word: target.vocabulary.token_bytes[word] or b"" for word in target.text_tokens()}
        whole = {word: text for word, text in spelled.items() if is_whole(text)}
        for number in alignment.matches.eq(Match.PARTIAL).nonzero()[:, 0].tolist():
            text = source.vocabulary.token_bytes[number] or b""
            allowed = whole if is_whole(text) else spelled
            want = min(allowed, key=lambda word: (*order(text, allowed[word]), word))
            assert int(alignment.targets[number, 0]) == want


SAMPLE = 400  # tokens of GPT-2 that Mistral lacks, evenly spaced
NONSENSE = 60  # number of them whose main token has another first character; docs/processors/ensemble.md states it


def test_the_share_of_nonsense(shared_tokenizers: Path) -> None:
    """On a fixed sample, no alignment passes over an equally near prefix, and few change the first character."""
    helper, main = (
        of(PreTrainedTokenizerFast(tokenizer_file=str(shared_tokenizers / name / "tokenizer.json"), eos_token=end))
        for name, end in (("gpt2", "<|endoftext|>"), ("mistral_v1", "</s>"))
    )
    targets = [main.vocabulary.token_bytes[word] or b"" for word in main.text_tokens()]
    targets = [target for target in targets if is_whole(target)]
    known = set(targets)
    absent = [text for text in helper.vocabulary.ids_of if text not in known and is_whole(text)]
    sample = absent[:: len(absent) // SAMPLE][:SAMPLE]
    chosen = [targets[place] for place in nearest_targets(sample, targets)]
    pairs = list(zip(sample, chosen, strict=True))
    for source, target in pairs:
        prefix = next((source[:cut] for cut in range(len(source) - 1, 0, -1) if source[:cut] in known), b"")
        passed_over = prefix and len(source) - len(prefix) == Levenshtein.distance(source, target)
        assert not passed_over or source.startswith(target)
    changed = [(s, t) for s, t in pairs if s.decode().strip().lower()[:1] != t.decode().strip().lower()[:1]]
    assert len(changed) == NONSENSE, changed
    page = (ROOT / "docs/processors/ensemble.md").read_text()
    assert f"`mined` aligns {NONSENSE / SAMPLE:.1%} to a token that begins with another character" in page


def test_without_a_whole_target_a_whole_token_stays_alone() -> None:
    """The main vocabulary has the two bytes of "é" only; "a" is aligned to neither, and a lone byte to its equal."""
    halves = byte_letters("é".encode())
    inner = Tokenizer(models.BPE(vocab={halves[0]: 0, halves[1]: 1, "<end>": 2}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    main = of(PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>"))
    helper = of(words())
    alignment = align("mined", helper, main)
    assert alignment.matches[token(helper, b"a")] == Match.NONE
    assert (
        alignment.targets[token(helper, b"\xc3"), 0] == 0 and alignment.matches[token(helper, b"\xc3")] == Match.EXACT
    )
    assert alignment.matches[token(helper, b"\x80")] == Match.PARTIAL
