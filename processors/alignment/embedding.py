"""Alignment by meaning: neighbours in embedding space, rotated onto each other along the tokens both share.

After EVA (arXiv:2404.09492), which maps output embeddings by VecMap; here input embeddings, which tied models
share. Rows are scaled to length 1, centred, and scaled again; an orthogonal map (Procrustes) brings the shared
tokens together. Its singular values say how much the two spaces have in common along each direction: directions
are weighted by their square roots and the `DIRECTIONS` best are kept. Candidates are ranked by CSLS, which
takes from a target's cosine what it shares with everything (hubs).

Departures: shared tokens stand for themselves; weights of the others' `NEIGHBOURS` best targets sum to 1, so no
mass is lost; EVA's filter of rows whose weights are all alike is left out, since it loses whole tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from logitkit.errors import ModelError
from logitkit.processors.alignment import alignment
from logitkit.processors.alignment.alignment import PARTIAL, Alignment, AlignmentVocabulary

NEIGHBOURS = 10  # targets of a token, as in EVA
DIRECTIONS = 128  # of the shared space; what is left of it is mostly noise
LEAST = 0.1  # CSLS below which a target is no neighbour, as in EVA
CHUNK = 1024


def neighbours(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> Alignment:
    """Shared tokens as themselves, the others as their nearest main tokens.

    Raises:
        ModelError: no embeddings, or fewer shared tokens than directions.
    """
    from logitkit.processors.alignment.matching import exact

    if helper.embeddings is None or main.embeddings is None:
        raise ModelError("align: 'embedding' needs both models' embeddings; choose another alignment")
    base = exact(helper, main)
    shared = ((base.kinds == alignment.EXACT) & ~_marked(helper.ends, helper.size)).nonzero()[:, 0]
    if len(shared) < 2:
        raise ModelError(f"align: 'embedding' needs tokens that both vocabularies have, got {len(shared)}; use 'gac'")
    left = (base.kinds == alignment.NONE).nonzero()[:, 0]
    words = torch.tensor(main.words())
    ours, theirs = _common_space(helper.embeddings, main.embeddings, shared, base.targets[shared, 0])
    targets = base.targets.repeat(1, NEIGHBOURS)
    weights = torch.nn.functional.pad(base.weights, (0, NEIGHBOURS - 1))
    count = min(NEIGHBOURS, len(words))
    hub = _mean_of_best(theirs[words], ours[shared], count)  # [words]
    doubled, across = 2 * ours, theirs[words].T.contiguous()
    room = torch.empty(CHUNK, len(words))  # one place for all products: fresh pages cost more than the product
    for chunk in tqdm(left.split(CHUNK), desc="neighbours", unit="chunk", disable=None, leave=False):
        score = torch.mm(doubled[chunk], across, out=room[: len(chunk)]).sub_(hub)  # CSLS but for the row's own hub
        best, place = score.topk(count, dim=-1)
        best = torch.where(best >= LEAST, best, 0)
        best[:, 0] = best[:, 0].clamp_min(LEAST)  # the nearest one stays, however far
        targets[chunk, :count] = words[place]
        weights[chunk, :count] = best / best.sum(-1, keepdim=True)
    kinds = base.kinds.clone()
    kinds[left] = PARTIAL
    return Alignment(
        method="embedding",
        helper=base.helper,
        main=base.main,
        targets=targets,
        weights=weights,
        size=base.size,
        kinds=kinds,
    )


def _common_space(ours: Tensor, theirs: Tensor, here: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate both tables along shared rows; unit rows, ``[size, directions]`` each."""
    ours, theirs = _prepared(ours, here), _prepared(theirs, there)
    left, strength, right = torch.linalg.svd(ours[here].T @ theirs[there], full_matrices=False)
    weight = (strength / strength[0].clamp_min(1e-12)).sqrt()[:DIRECTIONS]
    return (
        normalize(ours @ left[:, :DIRECTIONS] * weight, dim=-1),
        normalize(theirs @ right.T[:, :DIRECTIONS] * weight, dim=-1),
    )


def _prepared(table: Tensor, shared: Tensor) -> Tensor:
    """Rows of length 1, centred on the shared ones, of length 1 again."""
    unit = normalize(table.float().cpu(), dim=-1)
    return normalize(unit - unit[shared].mean(0), dim=-1)


def _mean_of_best(rows: Tensor, others: Tensor, count: int) -> Tensor:
    """Mean cosine of each row with its nearest others, ``[rows]``."""
    count = min(count, len(others))
    return torch.cat([(chunk @ others.T).topk(count, dim=-1).values.mean(-1) for chunk in rows.split(CHUNK)])


def _marked(ids: tuple[int, ...], size: int) -> Tensor:
    """Which of ``size`` ids are these."""
    marked = torch.zeros(size, dtype=torch.bool)
    marked[list(ids)] = True
    return marked
