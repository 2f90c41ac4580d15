"""The laws and the modes of generating: beams, batches, padding, assisted decoding and reuse are right."""

from logitkit.registry.laws import check_modes, parametrize_with_laws


@parametrize_with_laws(["blend"])
def test_laws(check) -> None:
    """One test a law; ``logitkit check blend`` shows them as a table."""
    check()


def test_modes_of_generating() -> None:
    """Each mode equals recomputation from scratch, or is refused; ``logitkit check blend --modes``."""
    assert [cell for cell in check_modes("blend") if cell.fault] == []
