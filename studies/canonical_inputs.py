"""Texts and trained tokenizers for `studies.canonical_successors`, written to a folder.

    python -m studies.canonical_inputs FOLDER --data DATA

The texts are two books, the programs of MBPP, and words of random letters of 24 scripts and blocks with random
separators. The tokenizers are trained on these texts: one with the pattern and the whole-word rule of Llama 3, one
that cuts every digit. Everything follows from the seed 0 and the data.
"""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path
from typing import Annotated, Any

import typer
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from studies import command
from studies.books import book_text

BOOKS = ("36-0.txt", "pg996_don_quixote.txt")  # files of Project Gutenberg
PART = slice(20_000, 220_000)  # characters of each book
PROGRAMS = "sanitized-mbpp.json"
WORDS = 12_000
BLOCKS = (
    *((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x17F), (0x370, 0x3FF), (0x400, 0x45F), (0x5D0, 0x5EA), (0x621, 0x64A)),
    *((0x905, 0x939), (0x93E, 0x94D), (0xE01, 0xE3A), (0x1100, 0x1112), (0x3041, 0x3093), (0x30A1, 0x30F6)),
    *((0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0x1F300, 0x1F64F), (0x1F900, 0x1F9FF), (0x13000, 0x1342E)),
    *((0x2190, 0x21FF), (0x2200, 0x22FF), (0x300, 0x314), (0x30, 0x39), (0xB2, 0xBF), (0x660, 0x669)),
)
SEPARATORS = (
    *(" ", " ", " ", "  ", "\n", "\n\n", "\t", ", ", ". ", "-", "", "'s ", "\u3000", "\u200d", "\ufe0f", "\xa0"),
    *("\r\n", '"', "(", ") ", "1", "12 ", "1,234"),
)
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def mixed_text(words: int = WORDS) -> str:
    """Return words of random letters of one block each, with random separators, after NFC; the seed is 0."""
    draw, parts = random.Random(0), []
    for _ in range(words):
        low, high = draw.choice(BLOCKS)
        parts.append("".join(chr(draw.randint(low, high)) for _ in range(draw.randint(1, 6))) + draw.choice(SEPARATORS))
    return unicodedata.normalize("NFC", "".join(parts))


def trained(texts: list[str], *, llama_3: bool) -> Any:
    """Return a byte-level tokenizer trained on texts.

    Args:
        texts: names of text files.
        llama_3: the pattern and the whole-word rule (``ignore_merges``) of Llama 3, and 20,000 tokens. Otherwise the
            pattern of GPT-2 behind a cut around every digit, and 4000 tokens.
    """
    inner = Tokenizer(models.BPE(ignore_merges=llama_3))
    digits = pre_tokenizers.Digits(individual_digits=True)
    first = pre_tokenizers.Split(Regex(LLAMA_3), "isolated") if llama_3 else digits
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not llama_3)
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Sequence([first, level]), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=20_000 if llama_3 else 4000,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>")


def main(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.")],
    data: Annotated[Path, typer.Option(help="Folder with the books and MBPP.")],
) -> None:
    """Write the texts and the two tokenizers."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = json.loads((data / PROGRAMS).read_text(encoding="utf-8"))
    texts = {name: book_text(data / name)[PART] for name in BOOKS}
    texts["code.txt"] = "\n\n".join(f"{row['prompt']}\n{row['code']}" for row in rows)
    texts["mixed.txt"] = mixed_text()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    paths = [str(folder / name) for name in sorted(texts)]
    for name, llama_3 in (("llama3_like", True), ("digits_4000", False)):
        trained(paths, llama_3=llama_3).save_pretrained(folder / name)


if __name__ == "__main__":
    command.run(main)
