"""Alignments by what tokens spell: equal bytes, the nearest bytes, or the first token of the other spelling."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist
from tqdm import tqdm

from logitkit.processors.alignment.alignment import EXACT, PARTIAL, Alignment, AlignmentVocabulary, one_hot
from logitkit.processors.tokens.retokenization import Retokenizer

CELLS = 2**25  # edit distances held at once, two bytes each

Pairs = list[tuple[int, int, int]]


def exact(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Alignment:
    """Equal bytes, nothing else."""
    return one_hot("exact", helper, main, _equal(helper, main))


def gac(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Alignment:
    """Equal bytes, else the first token that the main tokenizer writes."""
    return one_hot("gac", helper, main, _begun(helper, main))


def unite(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Alignment:
    """``gac`` from the helper, and the helper's own or first token for each main one."""
    back = torch.full((main.size,), -1, dtype=torch.long)
    for token, speaker, _ in _begun(main, helper):
        back[token] = speaker
    back[list(main.ends)] = helper.ends[0] if helper.ends else -1
    return dataclasses.replace(gac(helper, main), method="unite", back=back)


def mined(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Alignment:
    """Equal bytes, else the least edit distance over bytes; of several main tokens the one of the lowest id."""
    pairs = _equal(helper, main)
    words = main.words()
    if not words:
        return one_hot("mined", helper, main, pairs)
    done = {token for token, _, _ in pairs}
    left = [token for token in helper.words() if token not in done]
    sources = [helper.vocabulary.bytes[token] or b"" for token in left]
    targets = [main.vocabulary.bytes[word] or b"" for word in words]
    nearest = _nearest(sources, _bounds(sources, set(targets)), targets)
    pairs += [(token, words[place], PARTIAL) for token, place in zip(left, nearest.tolist(), strict=True)]
    return one_hot("mined", helper, main, pairs)


def _equal(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Pairs:
    """Tokens with the same bytes in both; of duplicates in the main vocabulary, the one its tokenizer writes."""
    ids_of, spelled = main.vocabulary.ids_of, helper.vocabulary.bytes
    chosen = {text: ids[0] for text, ids in ids_of.items()}
    twins = [text for text, ids in ids_of.items() if len(ids) > 1]
    written = _tokens(main, twins)
    chosen |= {text: ids[0] for text, ids in zip(twins, written, strict=True) if ids and ids[0] in ids_of[text]}
    found = [(token, chosen.get(spelled[token] or b"")) for token in helper.words()]
    return [(token, target, EXACT) for token, target in found if target is not None and target not in main.ends]


def _begun(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Pairs:
    """Equal bytes, else the first token that the main tokenizer writes, where that begins the same bytes."""
    pairs = _equal(helper, main)
    done = {token for token, _, _ in pairs}
    left = [token for token in helper.words() if token not in done]
    texts = [helper.vocabulary.bytes[token] or b"" for token in left]
    for token, text, ids in zip(left, texts, _tokens(main, texts), strict=True):
        if ids and ids[0] not in main.ends and text.startswith(main.vocabulary.bytes[ids[0]] or b"\0" * 99):
            pairs.append((token, ids[0], PARTIAL))
    return pairs


def _tokens(side: AlignmentVocabulary, texts: list[bytes]) -> list[list[int]]:
    """What a tokenizer writes for texts in the middle of a document."""
    return Retokenizer(side.vocabulary, side.tokenizer, side.vocabulary).of_bytes(texts)


def _bounds(sources: list[bytes], targets: set[bytes]) -> list[int]:
    """For each source a distance that some target keeps: to its longest beginning or end that is a target."""
    longest = max(map(len, targets))
    found = []
    for source in sources:
        inside = (cut for cut in range(1, len(source)) if source[cut:] in targets or source[:-cut] in targets)
        found.append(next(inside, max(len(source), longest)))
    return found


def _nearest(
    sources: list[bytes], bounds: list[int], targets: list[bytes]
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Index of the first target at the least edit distance from each source.

    Args:
        bounds: for each source a distance >= 1 that some target is known not to exceed.
    """
    kinds, theirs = _kinds(targets), _kinds(sources)
    lengths = kinds.sum(1)
    dtype = np.uint8 if max(lengths.max(), theirs.sum(1).max(initial=0)) < 256 else np.uint16
    texts = np.array([target.decode("latin-1") for target in targets], dtype=object)
    best = np.zeros(len(sources), dtype=np.int64)
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, bound in enumerate(bounds):
        groups.setdefault((bound, *theirs[number].tolist()), []).append(number)
    with tqdm(total=len(sources), desc="edit distances", unit="token", disable=None, leave=False) as bar:
        for (bound, *kind), group in groups.items():
            # Bytes of a kind that only one string has must each be edited: a bound that costs no search.
            least = np.maximum(lengths, sum(kind)) - np.minimum(kinds, kind).sum(1)
            near = np.flatnonzero(least <= bound)
            choices = texts[near].tolist()
            step = max(1, CELLS // max(1, len(choices)))
            for start in range(0, len(group), step):
                part = group[start : start + step]
                queries = [sources[number].decode("latin-1") for number in part]
                table = cdist(queries, choices, scorer=Levenshtein.distance, dtype=dtype, workers=-1)
                best[part] = near[table.argmin(1)]
                bar.update(len(part))
    return best


def _kinds(texts: list[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """How many bytes of each text are lower-case letters, capitals, other ASCII, and others, ``[texts, 4]``."""
    table = bytes(
        3 if byte > 127 else 0 if chr(byte).islower() else 1 if chr(byte).isupper() else 2 for byte in range(256)
    )
    spelled = [text.translate(table) for text in texts]
    return np.array([[text.count(kind) for kind in range(4)] for text in spelled], dtype=np.int64).reshape(-1, 4)
