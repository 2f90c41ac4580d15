"""The spelling guard of CoRE."""

from __future__ import annotations

import torch

from foreign import foreign_tokenizer
from logitkit.processors.ensemble import Core, Member
from logitkit.processors.tokens import Vocabulary


def test_the_guard_by_hand() -> None:
    """Where the main model chooses `t` and the ensemble `the`, the main row stays; so does an end of the main model."""
    foreign = foreign_tokenizer()
    vocabulary = Vocabulary.of(foreign, 320)
    t, the, x = (vocabulary.ids_of[text][0] for text in (b"t", b"the", b"x"))

    def chosen(main: int, helper: int, guard: bool) -> int:
        scores, theirs = torch.zeros(1, 320), torch.full((1, 320), -9.0)
        scores[0, main], theirs[0, helper] = 6.0, 9.0
        processor = Core(
            helpers=[Member(name="far", read=lambda ids: theirs)],
            token_bytes=vocabulary.token_bytes,
            end_tokens=[2],
            guard=guard,
            main_floor=0.0,
            filters=False,
        )
        return int(processor(torch.zeros(1, 1, dtype=torch.long), scores).argmax())

    assert [chosen(t, the, guard) for guard in (False, True)] == [the, t]
    assert [chosen(the, t, guard) for guard in (False, True)] == [t, the]
    assert [chosen(2, x, guard) for guard in (False, True)] == [x, 2]
    assert [chosen(t, x, guard) for guard in (False, True)] == [x, x]
