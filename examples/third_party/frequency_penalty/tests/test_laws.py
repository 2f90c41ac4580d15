"""The laws and the ways of generating: beams, batches, padding, assisted decoding and reuse are right."""

from logitkit.registry.laws import parametrize_with_laws
from logitkit.registry.laws.modes import check_modes


@parametrize_with_laws(["frequency_penalty"])
def test_laws(check) -> None:
    """One test a law; ``logitkit check frequency_penalty`` shows them as a table."""
    check()


def test_ways_of_generating() -> None:
    """Each equals recomputation from scratch, or is refused; ``logitkit check frequency_penalty --modes``."""
    assert [cell for cell in check_modes("frequency_penalty") if cell.fault] == []
