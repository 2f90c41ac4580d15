"""Style injection from the prompt: each row has the n-grams of its own prompt."""

from __future__ import annotations

import torch

import logitkit
from logitkit.processors.ngram import NgramContext, NgramStyle, NgramTable, TableVocabulary, table_of_groups
from logitkit.registry.laws import tiny_model, tiny_tokenizer

VOCABULARY = TableVocabulary(size=10, special=[8, 9], fingerprint=None)


def scores_of(seed: int) -> torch.Tensor:
    """Return two rows of random logits with some impossible tokens."""
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(2, VOCABULARY.size, generator=generator)
    return scores.masked_fill(torch.rand(2, VOCABULARY.size, generator=generator) < 0.1, -torch.inf)


def test_rows_of_a_context_table_see_their_own_prompt() -> None:
    """Each row moves exactly as with the table of its own document alone."""
    documents = [[1, 2, 3, 1, 2], [2, 1, 2, 5]]
    table = table_of_groups(documents, orders=3, vocabulary=VOCABULARY)
    rows, scores = torch.tensor([[7, 1, 2], [7, 1, 2]]), scores_of(seed=1)
    for rule in ("lift", "mixture"):
        got = NgramContext(table=table, weight=0.5, rule=rule, groups=lambda ids: torch.arange(len(ids)))(rows, scores)
        for index, document in enumerate(documents):
            own_table = NgramTable.count([document], size=VOCABULARY.size, special=VOCABULARY.special)
            alone = NgramStyle(table=own_table, weight=0.5, rule=rule)(rows[:1], scores[index : index + 1])
            torch.testing.assert_close(got[index].log_softmax(-1), alone[0].log_softmax(-1))


def test_the_prompt_is_copied() -> None:
    """At a large weight a random model repeats the wording of its own prompt, in a padded batch too."""
    prompts = ["the code is KX-4417 and the code is KX-4417; the code is", "0123456789 is 0123456789 is 01"]
    chain = "ngram_context(1.0, order_weights=[0.0, 0.0, 3.0])"
    batch = logitkit.generate(tiny_model(), tiny_tokenizer(), prompts, chain=chain, max_new_tokens=8, do_sample=False)
    assert batch.texts == [" KX-4417", "23456789"]
    assert [
        logitkit.generate(tiny_model(), tiny_tokenizer(), p, chain=chain, max_new_tokens=8, do_sample=False).texts[0]
        for p in prompts
    ] == batch.texts
