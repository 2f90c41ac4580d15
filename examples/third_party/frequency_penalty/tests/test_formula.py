"""The formula, worked by hand, and against a count by loop."""

import torch
from logitkit_frequency_penalty.processor import penalised

import logitkit
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_by_hand() -> None:
    """Token 1 was written twice, token 2 once."""
    got = penalised(torch.zeros(1, 4), torch.tensor([[1, 2, 1]]), penalty=0.5)
    torch.testing.assert_close(got, torch.tensor([[0.0, -1.0, -0.5, 0.0]]))


def test_greedy_text_is_that_of_a_loop() -> None:
    """Prompts of unequal length, whose tokens do not count."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    prompts = ["one prompt", "a second, longer prompt"]
    done = logitkit.generate(model, tokenizer, prompts, chain="frequency_penalty(2.0)", max_new_tokens=8)
    for prompt, text in zip(prompts, done.texts, strict=True):
        ids, written = tokenizer(prompt)["input_ids"], []
        for _ in range(8):
            with torch.no_grad():
                scores = model(torch.tensor([ids + written])).logits[0, -1]
            for token in written:
                scores[token] -= 2.0
            written.append(int(scores.argmax()))
        assert text == tokenizer.decode(written)
