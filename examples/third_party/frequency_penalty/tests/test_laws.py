"""The laws that every processor keeps."""

from logitkit.registry.laws import parametrize_with_laws


@parametrize_with_laws(["frequency_penalty"])
def test_laws(check) -> None:
    """One test a law."""
    check()
