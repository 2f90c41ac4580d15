"""The alignment ``embedding``: nearest tokens in an embedding space that both vocabularies share.

After EVA (arXiv:2404.09492). The steps:

1. Embeddings are scaled to length 1, centred on the mean of the shared tokens, and scaled to length 1 again.
2. An orthogonal map (Procrustes) rotates both tables along the tokens that both vocabularies have.
3. Each direction of the common space is weighted by the square root of its singular value, which measures how much
   the two spaces agree along it. The `DIRECTIONS` strongest directions are kept.
4. Candidates are ranked by CSLS: twice the cosine, minus the mean cosine of a target with its nearest shared tokens.
   This lowers the rank of targets that are near to everything (hubs). Of targets with the same CSLS in float32, the
   lowest ids are taken; untrained tokens often have equal embeddings.

Departures from EVA: input embeddings instead of output embeddings, which tied models share anyway; Procrustes instead
of VecMap; a token that both vocabularies have is aligned to itself; the weights of the `NEIGHBOURS` best targets of
any other token sum to 1, so no probability is lost; EVA's filter of rows with nearly equal weights is left out, since
it drops whole tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from logitkit.errors import ModelError
from logitkit.processors.alignment.alignment import Alignment, Match
from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.alignment.largest_products import LargestProducts
from logitkit.processors.alignment.matching import exact
from logitkit.progress import progress_bar

NEIGHBOURS = 10  # number of targets of a token, as in EVA
DIRECTIONS = 128  # number of directions of the common space; a heuristic: weaker directions are mostly noise
LEAST = 0.1  # targets of a lower CSLS get no weight, as in EVA
CHUNK = 4096  # number of tokens whose neighbours are searched at once


def neighbours(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Alignment:
    """Return the alignment in which shared tokens map to themselves and other tokens to their nearest main tokens.

    Raises:
        ModelError: a model has no input embeddings, or fewer than two tokens are shared.
    """
    if helper.embeddings is None or main.embeddings is None:
        raise ModelError("align: both models must have input embeddings for 'embedding'; choose another alignment")
    base = exact(helper, main)
    text_token = torch.ones(helper.size, dtype=torch.bool)
    text_token[list(helper.end_marks)] = False
    shared = ((base.matches == Match.EXACT) & text_token).nonzero()[:, 0]
    if len(shared) < 2:
        raise ModelError(f"align: vocabularies must share two tokens for 'embedding', got {len(shared)}; use 'gac'")
    rows, columns = _common_space(helper.embeddings, main.embeddings, shared, base.targets[shared, 0])
    candidates = torch.tensor(main.text_tokens())
    hubness = _mean_of_nearest(columns[candidates], rows[shared], min(NEIGHBOURS, len(candidates)))
    targets = base.targets.repeat(1, NEIGHBOURS)
    weights = pad(base.weights, (0, NEIGHBOURS - 1))
    unmatched = (base.matches == Match.NONE).nonzero()[:, 0]
    for chunk, places, shares in _weighted_neighbours(rows, columns[candidates], hubness, unmatched):
        targets[chunk, : places.shape[1]] = candidates[places]
        weights[chunk, : places.shape[1]] = shares
    matches = base.matches.clone()
    matches[unmatched] = Match.PARTIAL
    return dataclasses.replace(base, method="embedding", targets=targets, weights=weights, matches=matches)


def _weighted_neighbours(
    rows: Tensor, candidates: Tensor, hubness: Tensor, ids: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield chunks of ids, the row numbers of their nearest candidates, and weights that sum to 1.

    Args:
        rows: unit vectors of helper tokens, ``[helper size, directions]``.
        candidates: unit vectors of main tokens, ``[candidates, directions]``.
        hubness: mean cosine of each candidate with its nearest shared tokens, ``[candidates]``.
        ids: helper ids whose neighbours are wanted.
    """
    # CSLS without the mean cosine of the helper token, which does not change the order within a row.
    search, doubled = LargestProducts(candidates, -hubness), 2 * rows
    with progress_bar("neighbours", total=len(ids)) as bar:
        for chunk in ids.split(CHUNK):
            best, places = search(doubled[chunk], min(NEIGHBOURS, len(candidates)))
            best = torch.where(best >= LEAST, best, 0)
            best[:, 0] = best[:, 0].clamp_min(LEAST)  # the nearest target is kept at any distance
            yield chunk, places, best / best.sum(-1, keepdim=True)
            bar.advance(len(chunk))


def _common_space(
    helper_table: Tensor, main_table: Tensor, helper_ids: Tensor, main_ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Rotate both embedding tables along shared tokens.

    Args:
        helper_table: embeddings of the helper, ``[helper size, width]``.
        main_table: embeddings of the main model, ``[main size, main width]``.
        helper_ids: helper ids of the shared tokens.
        main_ids: main ids of the same tokens, in the same order.

    Returns:
        Unit vectors of helper tokens and of main tokens, ``[size, directions]`` each.
    """
    helper_shared, main_shared = _unit(helper_table[helper_ids]), _unit(main_table[main_ids])
    helper_mean, main_mean = helper_shared.mean(0), main_shared.mean(0)
    helper_shared, main_shared = (
        normalize(helper_shared - helper_mean, dim=-1),
        normalize(main_shared - main_mean, dim=-1),
    )
    left, strength, right = torch.linalg.svd(helper_shared.T @ main_shared, full_matrices=False)
    weight = (strength / strength[0].clamp_min(1e-12)).sqrt()[:DIRECTIONS]
    return (
        _projected(helper_table, helper_mean, left[:, :DIRECTIONS], weight),
        _projected(main_table, main_mean, right.T[:, :DIRECTIONS], weight),
    )


def _projected(table: Tensor, mean: Tensor, directions: Tensor, weight: Tensor) -> Tensor:
    """Return unit vectors of all rows of a table along weighted directions, ``[size, directions]``."""
    # In chunks: fresh memory for copies of a whole table takes longer than the arithmetic.
    return torch.cat(
        [
            normalize(normalize(_unit(chunk) - mean, dim=-1) @ directions * weight, dim=-1)
            for chunk in table.split(CHUNK)
        ]
    )


def _unit(table: Tensor) -> Tensor:
    """Return rows scaled to length 1, in float32 on the CPU."""
    return normalize(table.float().cpu(), dim=-1)


def _mean_of_nearest(rows: Tensor, others: Tensor, count: int) -> Tensor:
    """Return the mean cosine of each row with the ``count`` nearest rows of ``others``, ``[rows]``."""
    search, count = LargestProducts(others, torch.zeros(len(others))), min(count, len(others))
    return torch.cat([search(chunk, count)[0].mean(-1) for chunk in rows.split(CHUNK)])
