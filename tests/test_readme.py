"""The README tells the truth: its table is the registry's, and its code runs."""

from __future__ import annotations

import re
from pathlib import Path

from transformers import TemperatureLogitsWarper

from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.pages.readme_table import filled

README = Path(__file__).parents[1] / "README.md"


def test_the_table_is_the_registrys() -> None:
    """Run ``python -m logitkit.registry.pages.readme_table README.md`` when it is not."""
    text = README.read_text()
    assert filled(text) == text


def test_the_code_runs() -> None:
    """Every Python block, one after another, on a tiny model."""

    class MyProcessor(TemperatureLogitsWarper):
        def __init__(self) -> None:
            super().__init__(0.5)

    names = {
        "model": tiny_model(),
        "tokenizer": tiny_tokenizer(),
        "prompts": ["one", "and two"],
        "MyProcessor": MyProcessor,
    }
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(blocks) == 3
    for block in blocks:
        exec(
            block.replace("max_new_tokens=64", "max_new_tokens=4").replace(
                "do_sample=True", "do_sample=True, max_new_tokens=4"
            ),
            names,
        )
