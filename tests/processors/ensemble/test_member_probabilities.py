"""Probabilities of members in the main vocabulary."""

from __future__ import annotations

import pytest
import torch

from foreign import foreign_model, foreign_tokenizer
from logitkit.processors.ensemble import AlignmentVocabulary, Member, align, member_probabilities
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_the_union_by_hand() -> None:
    """UniTE with topk 2: main tokens a and b, helper tokens `the` (begins with t) and c; the union is a, b, t, c."""
    helper, main = (
        AlignmentVocabulary.of(foreign_model(), foreign_tokenizer()),
        AlignmentVocabulary.of(tiny_model(), tiny_tokenizer()),
    )

    def at(side: AlignmentVocabulary, **logits: float) -> torch.Tensor:
        scores = torch.full((1, side.size), -5.0)
        for text, value in logits.items():
            scores[0, side.vocabulary.ids_of[text.encode()][0]] = value
        return scores

    theirs = at(helper, the=3.0, c=2.0, a=1.0, t=0.5)
    member = Member(name="far", read=lambda ids: theirs, alignment=align("unite", helper, main))
    p, (q,) = member_probabilities(torch.zeros(1, 1, dtype=torch.long), at(main, a=2.0, b=1.0, t=0.0), [member], topk=2)
    places = [main.vocabulary.ids_of[letter.encode()][0] for letter in "abtc"]
    torch.testing.assert_close(p[0, places], torch.tensor([2.0, 1.0, 0.0, -5.0]).softmax(-1))
    torch.testing.assert_close(q[0, places], torch.tensor([1.0, -5.0, 0.5, 2.0]).softmax(-1))
    assert float(p.sum()) == pytest.approx(1) and float(q.sum()) == pytest.approx(1)
