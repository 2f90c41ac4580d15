"""The acts of ``logitkit demo``: prompts on which a strategy visibly changes what SmolLM2-135M writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STYLE = (
    "Aye, the sea be rough this morning, and the wind be howling from the north. The captain be standing at the "
    'wheel, and the crew be hauling on the ropes. "Hoist the black flag, ye scurvy dogs!" cried the captain. "There '
    'be gold on that island, and there be a ship of the king to keep us from it."\n'
    "The old cook be a wise man, arr, and he be singing of the sea and of the rum. "
    '"The best thing in the life of a pirate be a barrel of rum," said the cook, "and the second best thing be a chest '
    'of gold." The first mate be a tall man with a wooden leg, and a parrot be sitting on his shoulder. "Pieces of '
    'eight!" cried the parrot, arr, and the crew be laughing.\n'
    'By noon the sun be hot, and the sea be calm. "Land ho!" cried the lad in the crow\'s nest. The island be green, '
    'and the sand be white, and a hill be shaped like the skull of a dead man. "Drop the anchor, me hearties!" cried '
    'the captain. "We be rich men by nightfall, arr, or we be dead men at the bottom of the sea."\n'
    "The crew be digging in the sand all day, and the sun be burning on their backs. My name be Tom, and I be the "
    "youngest of the crew. I be afraid of the dark, arr, but I be not afraid of the sea. The chest be buried under an "
    'old tree, and the lock of the chest be made of iron. "Open it, ye scurvy dogs!" cried the captain. The gold be '
    "shining like the sun, and the crew be dancing on the sand, arr, and the cook be opening a barrel of rum.\n"
)


@dataclass(frozen=True, kw_only=True)
class Act:
    """One comparison of plain decoding with a chain.

    Attributes:
        title: what the act shows.
        problem: what plain decoding does, in a sentence or two.
        prompt: the prompt.
        chain: the chain.
        new_tokens: largest number of new tokens.
        remark: what the act does not show.
        one_paragraph: show the continuations up to the first empty line.
    """

    title: str
    problem: str
    prompt: str
    chain: str
    new_tokens: int
    remark: str
    one_paragraph: bool = True

    def resources(self, tokenizer: Any) -> dict[str, Any]:
        """Return the objects that the chain names: the table of the style, counted now."""
        if "'pirate'" not in self.chain:
            return {}
        from logitkit.processors.ngram import NgramTable

        return {"pirate": NgramTable.train([STYLE], tokenizer)}


ACTS = (
    Act(
        title="A prompt that ends inside a word",
        problem="The tokens of a cut word are not those of the whole word, so plain decoding loses the thread. "
        "byte_boundary gives the cut bytes back to the model and continues by its exact distribution.",
        prompt="The capital of Fra",
        chain="byte_boundary()",
        new_tokens=16,
        remark="In our report, plain decoding completes the cut word of 16 of 200 prompts, and byte_boundary of 163.",
    ),
    Act(
        title="The style of a text",
        problem="ngram_style counts the n-grams of a text, here 300 words about pirates, and favours tokens that "
        "follow in it. Nothing is trained.",
        prompt="We went to the beach, and",
        chain="ngram_style(table='pirate', weight=0.8)",
        new_tokens=24,
        remark="A larger weight copies the text. A smaller one leaves more to the model.",
    ),
    Act(
        title="Examples in the prompt that plain decoding copies",
        problem="Plain decoding answers and then writes further examples, as if they were asked for. uscd contrasts "
        "with the prompt without its examples at steps where the model is uncertain.",
        prompt="Name the capital.\n\nInput: France\nOutput: Paris\n\nInput: Italy\nOutput: Rome\n\n"
        "Input: Spain\nOutput:",
        chain="uscd()",
        new_tokens=24,
        remark="This prompt was chosen to show the effect. On average our benchmark finds no gain from uscd with this "
        "small model; the method was published for larger ones.",
        one_paragraph=False,
    ),
)
