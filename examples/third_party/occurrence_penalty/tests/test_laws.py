"""The laws and the generation modes: beams, batches, padding, assisted decoding and reuse."""

from logitkit.registry.laws import check_modes, parametrize_with_laws


@parametrize_with_laws(["occurrence_penalty"])
def test_laws(check) -> None:
    """The processor keeps the law; ``logitkit check occurrence_penalty`` shows all laws in a table."""
    check()


def test_generation_modes() -> None:
    """Each mode equals a recomputation from scratch, or is refused."""
    assert [cell for cell in check_modes("occurrence_penalty") if cell.fault] == []
