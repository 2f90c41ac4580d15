"""Relative representations of tokens: similarities to anchor tokens that all models share (DeePEn).

Huang et al., arXiv:2404.12715. A token is represented by T = softmax(100 R), where R holds the cosines of its input
embedding to the embeddings of the anchors, scaled to length 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.alignment.matching import exact

SHARPNESS = 100.0  # of the softmax over anchors, as in the released code


class Representation:
    """Relative representation of a model's tokens.

    Args:
        embeddings: input embeddings, ``[vocab, width]``.
        anchors: ids of the anchor tokens, in an order that all models share.

    >>> table = torch.tensor([[1.0, 0.0], [0.0, 3.0], [5.0, 5.0]])
    >>> Representation(table, anchors=torch.tensor([0, 1]))(torch.tensor([2]))
    tensor([[0.5000, 0.5000]])
    """

    def __init__(self, embeddings: Tensor, anchors: Tensor) -> None:
        self.embeddings = embeddings
        self.anchors = normalize(embeddings[anchors].float(), dim=-1)  # [anchors, width]

    def __call__(self, ids: Tensor) -> Tensor:
        """Return the rows of T for token ids of any shape, ``[..., anchors]``; each row sums to 1."""
        cosine = normalize(self.embeddings[ids].float(), dim=-1) @ self.anchors.T
        return (SHARPNESS * normalize(cosine, dim=-1)).softmax(-1)


def shared_tokens(
    main: AlignmentVocabulary, helpers: Sequence[AlignmentVocabulary], count: int
) -> tuple[Tensor, list[Tensor]]:
    """Return the ids of tokens of the same bytes in all vocabularies.

    Args:
        main: vocabulary of the main model.
        helpers: vocabularies of the helpers.
        count: greatest number of tokens; those of the lowest main ids are taken.

    Returns:
        Main ids, ``[tokens]``, and for each helper its ids of the same tokens in the same order.

    >>> from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
    >>> main = AlignmentVocabulary.of(tiny_model(), tiny_tokenizer())
    >>> helper = AlignmentVocabulary.of(foreign_model(), foreign_tokenizer())
    >>> ours, (theirs,) = shared_tokens(main, [helper], 3)
    >>> [helper.vocabulary.token_bytes[i] for i in theirs] == [main.vocabulary.token_bytes[i] for i in ours]
    True
    """
    helper_ids = [_helper_ids(helper, main) for helper in helpers]
    ids = sorted(set(main.text_tokens()).intersection(*helper_ids))[:count]
    return torch.tensor(ids, dtype=torch.long), [
        torch.tensor([by_main[i] for i in ids], dtype=torch.long) for by_main in helper_ids
    ]


def _helper_ids(helper: AlignmentVocabulary, main: AlignmentVocabulary) -> dict[int, int]:
    """Return the helper id of each shared main id; of several helper ids of the same bytes, the lowest."""
    alignment = exact(helper, main)
    ids = (alignment.weights[:, 0] > 0).nonzero()[:, 0].flip(0)  # the lowest id last, so that it stays in the dict
    return dict(zip(alignment.targets[ids, 0].tolist(), ids.tolist(), strict=True))
