"""The mixture on a worked example, and the processor against a loop without a cache."""

import torch
from logitkit_blend.processor import Blend, mixture

import logitkit
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_worked_example() -> None:
    """With weight 0.5 the mixture is the mean of p and of q without the token that is impossible under p."""
    p, q = torch.tensor([[0.75, 0.25, 0.0]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    torch.testing.assert_close(mixture(p, q, weight=0.5).exp(), torch.tensor([[0.625, 0.375, 0.0]]))


def test_a_plain_function_is_a_second_stream() -> None:
    """The class accepts a function of the rows as its second stream, without a registry."""
    blend = Blend(second=lambda rows: torch.tensor([[0.25, 0.75]]).log(), weight=0.5)
    result = blend(torch.tensor([[0]]), torch.tensor([[0.75, 0.25]]).log()).exp()
    torch.testing.assert_close(result, torch.tensor([[0.5, 0.5]]))


def test_greedy_text_is_that_of_a_loop() -> None:
    """Greedy texts equal those of a loop, for prompts of unequal length with a second model and a second prompt."""
    model, other, tokenizer = tiny_model(), tiny_model(1), tiny_tokenizer()
    prompts = ["one prompt", "a second, longer prompt"]
    chain = "blend(model='other', before='A sad story. ', weight=0.5)"
    generation = logitkit.generate(model, tokenizer, prompts, chain=chain, resources={"other": other}, max_new_tokens=8)
    for prompt, text in zip(prompts, generation.texts, strict=True):
        first, second = tokenizer(prompt)["input_ids"], tokenizer("A sad story. " + prompt)["input_ids"]
        new: list[int] = []
        for _ in range(8):
            with torch.no_grad():
                p = model(torch.tensor([first + new])).logits[0, -1].softmax(-1)
                q = other(torch.tensor([second + new])).logits[0, -1].softmax(-1)
            new.append(int((p + q).argmax()))
        assert text == tokenizer.decode(new)
