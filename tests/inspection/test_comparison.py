"""Two chains on one prompt: where their continuations part."""

from __future__ import annotations

from inspections import inspect_tiny_model
from logitkit.inspection import Comparison, compare
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_sides_are_two_inspections_with_the_same_seed() -> None:
    """Both sides equal `inspect` with their chain, settings and seed."""
    settings = {"max_new_tokens": 6, "do_sample": True, "seed": 5}
    got = compare(tiny_model(), tiny_tokenizer(), "Once", "temperature(0.7)", "top_k(9)", **settings)  # type: ignore[arg-type]
    for side, chain in zip(got.sides, ("temperature(0.7)", "top_k(9)"), strict=True):
        assert side.completion.row == inspect_tiny_model(chain, **settings).completion.row


def test_continuations_part_at_the_first_token_that_differs() -> None:
    """A ban of the fourth token of plain decoding parts the continuations there or, if it occurs before, earlier."""
    plain = inspect_tiny_model("")
    tokens = [move.token for move in plain.moves]
    banned = inspect_tiny_model(f"suppress_tokens([{tokens[3]}])")
    pair = Comparison(first=plain, second=banned)
    assert pair.shared == tokens.index(tokens[3]) and not pair.equal and pair.same_prompt


def test_a_shorter_continuation_is_not_equal() -> None:
    """One side ended: the tokens that both have are shared."""
    pair = Comparison(first=inspect_tiny_model(""), second=inspect_tiny_model("", max_new_tokens=5))
    assert pair.shared == 5 and not pair.equal


def test_different_prompts_share_no_token() -> None:
    """Chains that rewrite the prompt are not compared token by token."""
    pair = Comparison(first=inspect_tiny_model("", "Onc"), second=inspect_tiny_model("", "Once"))
    assert pair.shared == 0 and not pair.equal and not pair.same_prompt


def test_a_chain_has_its_own_models() -> None:
    """The parameters of each chain name objects of their own."""
    pair = compare(
        *(
            tiny_model(),
            tiny_tokenizer(),
            "Once",
            "contrastive(amateur='weak')",
            "contrastive(amateur='weak', beta=0.1)",
        ),
        resources={"weak": tiny_model(1)},
        against_resources={"weak": tiny_model(2)},
        max_new_tokens=3,
    )
    assert [len(side.moves) for side in pair.sides] == [3, 3]
