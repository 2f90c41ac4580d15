"""Alignments by what tokens spell: equal bytes, the nearest bytes, or the first token of the other spelling."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist
from tqdm import tqdm

from logitkit.processors.alignment import EXACT, PARTIAL, Alignment, Side, one_hot
from logitkit.processors.retokenization import Retokenizer

CELLS = 2**26  # edit distances held at once, a byte each

Pairs = list[tuple[int, int, int]]


def exact(helper: Side, main: Side) -> Alignment:
    """Equal bytes, nothing else."""
    return one_hot("exact", helper, main, _equal(helper, main))


def gac(helper: Side, main: Side) -> Alignment:
    """Equal bytes, else the first token that the main tokenizer writes."""
    return one_hot("gac", helper, main, _begun(helper, main))


def unite(helper: Side, main: Side) -> Alignment:
    """``gac`` from the helper, and the helper's own or first token for each main one."""
    back = torch.full((main.size,), -1, dtype=torch.long)
    for token, speaker, _ in _begun(main, helper):
        back[token] = speaker
    back[list(main.ends)] = helper.ends[0] if helper.ends else -1
    return dataclasses.replace(gac(helper, main), method="unite", back=back)


def mined(helper: Side, main: Side) -> Alignment:
    """Equal bytes, else the least edit distance over bytes; of several main tokens the one of the lowest id."""
    pairs = _equal(helper, main)
    words = main.words()
    if not words:
        return one_hot("mined", helper, main, pairs)
    done = {token for token, _, _ in pairs}
    begun = {token: target for token, target, _ in _begun(helper, main)}
    left = [token for token in helper.words() if token not in done]
    spelled, other = helper.vocabulary.bytes, main.vocabulary.bytes
    sources = [_text(spelled[token]) for token in left]
    # The first token of its spelling is so many deletions away, so a nearer one is no longer or shorter than that.
    bounds = [
        len(source) - len(other[begun[token]] or b"") if token in begun else max(len(source), 2)
        for token, source in zip(left, sources, strict=True)
    ]
    nearest = _nearest(sources, bounds, [_text(other[token]) for token in words])
    pairs += [(token, words[place], PARTIAL) for token, place in zip(left, nearest.tolist(), strict=True)]
    return one_hot("mined", helper, main, pairs)


def _equal(helper: Side, main: Side) -> Pairs:
    """Tokens with the same bytes in both; of duplicates in the main vocabulary, the one its tokenizer writes."""
    ids_of, spelled = main.vocabulary.ids_of, helper.vocabulary.bytes
    chosen = {text: ids[0] for text, ids in ids_of.items()}
    twins = [text for text, ids in ids_of.items() if len(ids) > 1]
    written = _tokens(main, twins)
    chosen |= {text: ids[0] for text, ids in zip(twins, written, strict=True) if ids and ids[0] in ids_of[text]}
    found = [(token, chosen.get(spelled[token] or b"")) for token in helper.words()]
    return [(token, target, EXACT) for token, target in found if target is not None and target not in main.ends]


def _begun(helper: Side, main: Side) -> Pairs:
    """Equal bytes, else the first token that the main tokenizer writes, where that begins the same bytes."""
    pairs = _equal(helper, main)
    done = {token for token, _, _ in pairs}
    left = [token for token in helper.words() if token not in done]
    texts = [helper.vocabulary.bytes[token] or b"" for token in left]
    for token, text, ids in zip(left, texts, _tokens(main, texts), strict=True):
        if ids and ids[0] not in main.ends and text.startswith(main.vocabulary.bytes[ids[0]] or b"\0" * 99):
            pairs.append((token, ids[0], PARTIAL))
    return pairs


def _tokens(side: Side, texts: list[bytes]) -> list[list[int]]:
    """What a tokenizer writes for texts in the middle of a document."""
    return Retokenizer(side.vocabulary, side.tokenizer, side.vocabulary).of_bytes(texts)


def _text(spelled: bytes | None) -> str:
    """Bytes as characters of one byte each, which the edit distance counts one by one."""
    return (spelled or b"").decode("latin-1")


def _nearest(sources: list[str], bounds: list[int], targets: list[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Index of the first target at the least edit distance from each source.

    Args:
        bounds: a distance that some target is known not to exceed; for each source, >= 1.
    """
    lengths = np.array([len(target) for target in targets])
    best = np.zeros(len(sources), dtype=np.int64)
    groups: dict[tuple[int, int], list[int]] = {}
    for number, (source, bound) in enumerate(zip(sources, bounds, strict=True)):
        groups.setdefault((len(source), bound), []).append(number)
    with tqdm(total=len(sources), desc="edit distances", unit="token", disable=None, leave=False) as bar:
        for (length, bound), group in sorted(groups.items()):
            # Two strings differ by at least the difference of their lengths.
            near = np.flatnonzero(np.abs(lengths - length) <= bound)
            texts = [targets[number] for number in near]
            step = max(1, CELLS // max(1, len(texts)))
            for start in range(0, len(group), step):
                part = group[start : start + step]
                queries = [sources[number] for number in part]
                limit = np.uint8 if length + bound < 256 else np.uint16
                table = cdist(queries, texts, scorer=Levenshtein.distance, dtype=limit, workers=-1)
                best[part] = near[table.argmin(1)]
                bar.update(len(part))
    return best
