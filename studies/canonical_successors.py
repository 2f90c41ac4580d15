"""Check of `canonical`: its masks against brute force over continuations, for many random next tokens.

A token may come next if, for one of many continuations, the tokenizer's own encoding begins with the tokens so far and
this token. Brute force tries the continuations of `CONTINUATIONS`, and behind an incomplete character the characters of
a sample of Unicode. It encodes whole texts and shares no code with the rules.

    python -m studies.canonical_inputs FOLDER --data DATA
    python -m studies.canonical_successors TOKENIZER... --texts FILE --texts FILE --count 10000

The first command writes texts, and two trained tokenizers. Behind an incomplete character that no text completes, up to
4096 characters are tried alone, and characters of the sample before a second one.

A *wrong refusal* is a token that the mask forbids though brute force found a continuation. A token that the mask allows
though no continuation was found counts as *wrongly allowed*, also where a continuation that was not tried exists.
"""

from __future__ import annotations

import codecs
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from transformers import AutoTokenizer

from logitkit.files import cache_folder
from logitkit.processors.canonical import canonical_prefix
from logitkit.processors.canonical.rules import new_rules
from logitkit.processors.tokens import Vocabulary
from logitkit.processors.tokens.byte_fallback import code_points
from logitkit.processors.tokens.tokenizer_tables import FOLDER, TokenizerTables
from studies import command
from studies.tables import markdown_table

CONTINUATIONS = (
    *("", "a", "b", "e", "s", "t", "x", "A", "Z", " ", "  ", "\n", "\t", "1", "12", "123", ".", ",", "'", "'s", "ll"),
    *("-", "(", "/", "_", "é", "я", "一", "の", "ه", "한", "\u0301", "\u200d", "🎉", " a", " 1", "\n\n", "\n a", " ."),
    "ing",
)
CHARACTERS = [chr(code) for code in (*range(0x80, 0x3000), *range(0x3000, 0xD800, 7), *range(0xF900, 0x32000, 37))]
# One character for each beginning of two bytes: merges can cross the end of the character before.
NEXT = [*{char.encode()[:2]: char for char in CHARACTERS if char < "\U00010000"}.values()]
ENDS = 64  # ways to complete a character that are tried with each character of `NEXT`
MOST = 4096  # characters that begin with the same bytes are all tried, up to this number
BATCH = 4096  # texts encoded at once


def completions(open_bytes: bytes, decoded: dict[bytes, list[str]]) -> list[str]:
    """Return characters that start with these bytes, from the sample of Unicode and all code points of short ranges."""
    if open_bytes not in decoded:
        decoded[open_bytes] = [char for char in CHARACTERS if char.encode().startswith(open_bytes)]
        if len(decoded[open_bytes]) < 64:  # few in the sample: try all
            every = (chr(code) for code in range(0x80, 0x110000) if not 0xD800 <= code < 0xE000)
            decoded[open_bytes] = [char for char in every if char.encode().startswith(open_bytes)][:5000]
    return decoded[open_bytes]


class BruteForce:
    """Which tokens can come next, by encoding whole texts with the tokenizer itself.

    Args:
        tokenizer: a fast tokenizer.
        vocabulary: its tokens as bytes.
    """

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary) -> None:
        self._encoder, self._vocabulary = tokenizer.backend_tokenizer, vocabulary
        self._decoded: dict[bytes, list[str]] = {}

    def texts(self, tokens: Sequence[int], *, far: bool) -> Iterator[str]:
        """Yield the texts to try for a sequence of tokens; with ``far`` more characters, and a second one behind."""
        decoder = codecs.getincrementaldecoder("utf-8")("strict")
        try:
            text = decoder.decode(self._vocabulary.join(tokens).removeprefix(self._vocabulary.prefix))
        except UnicodeDecodeError:
            return
        open_bytes = decoder.getstate()[0]
        for more in completions(open_bytes, self._decoded) if open_bytes else CONTINUATIONS:
            yield text + more
        if open_bytes and far:
            points = code_points(open_bytes)
            yield from (text + chr(point) for point in points if len(points) <= MOST)
            ends = completions(open_bytes, self._decoded)
            for end, behind in itertools.product(ends[:: 1 + len(ends) // ENDS], NEXT):
                yield text + end + behind

    def begins_an_encoding(self, sequences: list[tuple[int, ...]], *, far: bool = False) -> list[bool]:
        """Return whether each sequence of tokens begins the encoding of a text that was tried.

        Args:
            sequences: token ids.
            far: whether a second character is tried behind an incomplete one, which takes up to 60,000 texts.
        """
        found = [False] * len(sequences)
        waiting = {number: self.texts(tokens, far=far) for number, tokens in enumerate(sequences)}
        while waiting:
            tried = {number: text for number, texts in waiting.items() if (text := next(texts, None)) is not None}
            encodings = self._encoder.encode_batch(list(tried.values()), add_special_tokens=False)
            for number, encoding in zip(tried, encodings, strict=True):
                found[number] = tuple(encoding.ids[: len(sequences[number])]) == sequences[number]
            waiting = {number: waiting[number] for number in tried if not found[number]}
        return found


# Over 40 lines: the draws, and the counts that they change.
def compared(name: str, texts: Sequence[str], count: int, seed: int, per_prefix: int = 32) -> dict[str, Any]:
    """Return how often the mask and brute force differ for random next tokens behind beginnings of texts.

    Half of the next tokens are drawn from the whole vocabulary, and half from the tokens that the mask allows or whose
    first byte is that of the true next token.
    """
    tokenizer = AutoTokenizer.from_pretrained(name)
    tables = TokenizerTables(tokenizer, len(tokenizer), cache_folder() / FOLDER)
    vocabulary = Vocabulary.of(tokenizer, len(tokenizer), tables=tables)
    rules, brute = new_rules(tokenizer, vocabulary, tables), BruteForce(tokenizer, vocabulary)
    tables.save()
    draw = np.random.default_rng(seed)
    with_text = np.flatnonzero([bool(text) for text in vocabulary.token_bytes])
    first = np.array([(text or b"\0")[0] for text in vocabulary.token_bytes])
    sequences: list[tuple[int, ...]] = []
    verdicts: list[bool] = []
    result: dict[str, Any] = {
        "tokenizer": Path(name).name,
        "successors": 0,
        "allowed": 0,
        "wrong refusals": 0,
        "wrongly allowed": 0,
    }
    odd: list[Any] = []

    def decide() -> None:
        near = brute.begins_an_encoding(sequences)
        open_cases = [number for number, found in enumerate(near) if verdicts[number] and not found]
        again = brute.begins_an_encoding([sequences[number] for number in open_cases], far=True)
        for number, found in zip(open_cases, again, strict=True):
            near[number] = found
        for tokens, ours, found in zip(sequences, verdicts, near, strict=True):
            result["successors"] += 1
            result["allowed"] += ours
            if ours != found:
                result["wrongly allowed" if ours else "wrong refusals"] += 1
                odd.append((ours, [vocabulary.token_bytes[token] for token in tokens[-4:]]))
        sequences.clear()
        verdicts.clear()

    while result["successors"] + len(sequences) < count:
        text = texts[int(draw.integers(len(texts)))]
        start = int(draw.integers(max(1, len(text) - 40)))
        ids = list(tokenizer.backend_tokenizer.encode(text[start : start + 40], add_special_tokens=False).ids)
        cut = int(draw.integers(len(ids))) if ids else 0
        if not ids or any(vocabulary.token_bytes[token] is None for token in ids[:cut]):
            continue
        mask = rules.successors(canonical_prefix(rules, ids[:cut]).context)
        likely = with_text[mask[with_text] | (first[with_text] == first[ids[cut]])]
        half = per_prefix // 2
        chosen = {ids[cut], *draw.choice(with_text, half).tolist(), *draw.choice(likely, half).tolist()}
        if not cut and vocabulary.prefix:
            continue
        sequences += [(*ids[:cut], token) for token in chosen]
        verdicts += [bool(mask[token]) for token in chosen]
        if len(sequences) >= BATCH:
            decide()
    decide()
    return result | {"odd": [(ours, [repr(part) for part in parts]) for ours, parts in odd[:20]]}


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the counts of each tokenizer, and of all together, as a table in Markdown."""
    counts = ("successors", "allowed", "wrong refusals", "wrongly allowed")
    rows = [[str(result["tokenizer"]), *(f"{result[name]:,}" for name in counts)] for result in results]
    total = [f"{sum(result[name] for result in results):,}" for name in counts]
    return markdown_table(["tokenizer", *counts], [*rows, ["all", *total]])


def main(
    tokenizers: Annotated[list[str], typer.Argument(help="Names or folders of tokenizers.")],
    texts: Annotated[list[Path], typer.Option(help="A text file, from which prefixes are cut; repeatable.")],
    count: Annotated[int, typer.Option(min=1, help="Next tokens for each tokenizer.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
) -> None:
    """Compare the masks of canonical with brute force; print a line of JSON for each tokenizer, and a table of all."""
    read, results = [path.read_text(encoding="utf-8") for path in texts], []
    for name in tokenizers:
        start = time.perf_counter()
        result = compared(name, read, count, seed)
        results.append(result | {"seconds": round(time.perf_counter() - start, 1)})
        print(json.dumps(results[-1], ensure_ascii=False), flush=True)
    print(table(results))


if __name__ == "__main__":
    command.run(main)
