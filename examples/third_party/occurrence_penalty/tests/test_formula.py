"""The formula on a worked example, and the processor against a plain loop."""

import torch
from logitkit_occurrence_penalty.processor import penalised

import logitkit
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_worked_example() -> None:
    """Token 1 was generated twice and loses 1.0; token 2 was generated once and loses 0.5."""
    result = penalised(torch.zeros(1, 4), torch.tensor([[1, 2, 1]]), penalty=0.5)
    torch.testing.assert_close(result, torch.tensor([[0.0, -1.0, -0.5, 0.0]]))


def test_greedy_text_is_that_of_a_loop() -> None:
    """Greedy texts equal those of a loop that counts new tokens, for prompts of unequal length."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    prompts = ["one prompt", "a second, longer prompt"]
    generation = logitkit.generate(model, tokenizer, prompts, chain="occurrence_penalty(2.0)", max_new_tokens=8)
    for prompt, text in zip(prompts, generation.texts, strict=True):
        ids, new = tokenizer(prompt)["input_ids"], []
        for _ in range(8):
            with torch.no_grad():
                scores = model(torch.tensor([ids + new])).logits[0, -1]
            for token in new:
                scores[token] -= 2.0
            new.append(int(scores.argmax()))
        assert text == tokenizer.decode(new)
