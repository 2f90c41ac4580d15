"""The mixture by hand, and greedy text against a loop that keeps no cache."""

import torch
from logitkit_blend.processor import Blend, mixture

import logitkit
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_by_hand() -> None:
    """Half of each; the impossible third token stays impossible."""
    p, q = torch.tensor([[0.75, 0.25, 0.0]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    torch.testing.assert_close(mixture(p, q, weight=0.5).exp(), torch.tensor([[0.625, 0.375, 0.0]]))


def test_a_plain_function_is_a_second_stream() -> None:
    """The class works without a registry and without a second model."""
    blend = Blend(second=lambda rows: torch.tensor([[0.25, 0.75]]).log(), weight=0.5)
    got = blend(torch.tensor([[0]]), torch.tensor([[0.75, 0.25]]).log()).exp()
    torch.testing.assert_close(got, torch.tensor([[0.5, 0.5]]))


def test_greedy_text_is_that_of_a_loop() -> None:
    """Prompts of unequal length, a second prompt, and a second model under it."""
    model, other, tokenizer = tiny_model(), tiny_model(1), tiny_tokenizer()
    prompts = ["one prompt", "a second, longer prompt"]
    chain = "blend(model='other', before='A sad story. ', weight=0.5)"
    done = logitkit.generate(model, tokenizer, prompts, chain=chain, resources={"other": other}, max_new_tokens=8)
    for prompt, text in zip(prompts, done.texts, strict=True):
        first, second = tokenizer(prompt)["input_ids"], tokenizer("A sad story. " + prompt)["input_ids"]
        written: list[int] = []
        for _ in range(8):
            with torch.no_grad():
                p = model(torch.tensor([first + written])).logits[0, -1].softmax(-1)
                q = other(torch.tensor([second + written])).logits[0, -1].softmax(-1)
            written.append(int((p + q).argmax()))
        assert text == tokenizer.decode(written)
