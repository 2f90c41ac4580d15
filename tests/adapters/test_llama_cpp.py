"""Chains in llama-cpp-python: a stand-in calls the processor as `Llama.generate` does, from code that hides exceptions.

`llama_cpp_equals_transformers.py` compares the tokens of the real engine; it is run by hand, since the engine is built
from source.
"""

from __future__ import annotations

import contextlib
import copy
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import logitkit
from fresh import ROOT
from logitkit.adapters.llama_cpp import arguments
from logitkit.errors import LogitkitError, ModeError, ModelError, ParameterError
from logitkit.processors.ngram import NgramTable
from logitkit.registry.laws import foreign_tokenizer, tiny_model, tiny_tokenizer

PROMPT = "the text of a prompt, the other text"
CHAINS = ["", "no_repeat_ngram(2)", "repetition_penalty(1.3)", "ngram_context(weight=0.3)", "frequency_penalty(0.7)"]


class Engine:
    """Stands in for `llama_cpp.Llama`: greedy, and with the loop of its ``generate`` over a tiny model."""

    draft_model: Any = None

    def __init__(self, size: int | None = None) -> None:
        self._model, self._tokenizer = tiny_model(), tiny_tokenizer()
        self._size = size or self._model.config.vocab_size

    def n_vocab(self) -> int:
        """Number of tokens."""
        return self._size

    def token_eos(self) -> int:
        """The end token."""
        return int(self._tokenizer.eos_token_id)

    def detokenize(self, tokens: list[int]) -> bytes:
        """Text of tokens."""
        return str(self._tokenizer.decode(tokens)).encode()

    def create_completion(self, *, max_tokens: int, **given: Any) -> dict[str, Any]:
        """A completion, of eight tokens whatever is asked for."""
        assert max_tokens > 0
        return {"choices": [{"text": self._tokenizer.decode(self.complete(**given))}]}

    def complete(self, prompt: list[int], logits_processor: Any, stopping_criteria: Any, **settings: Any) -> list[int]:
        """Return the tokens of a completion of eight tokens."""
        assert settings["temperature"] in (0.0, 1.0) and settings["top_k"] == 0
        row = np.array(prompt, dtype=np.intc)
        for _ in range(8):
            with torch.inference_mode():
                scores = self._model(torch.tensor(row.astype(int))[None]).logits[0, -1].numpy().astype(np.single)
            for processor in logits_processor or ():
                with contextlib.suppress(BaseException):  # ctypes prints what a callback raises, and goes on
                    scores[:] = processor(row, scores)
            if stopping_criteria(row, scores):
                break
            row = np.append(row, np.intc(scores.argmax()))
            if row[-1] == self.token_eos():
                break
        return [int(token) for token in row[len(prompt) :]]


@pytest.fixture(name="engine")
def new_engine() -> Iterator[Engine]:
    """An engine with the tiny model."""
    yield Engine()


@pytest.mark.parametrize("chain", CHAINS)
def test_the_tokens_are_those_of_generate(chain: str, engine: Engine) -> None:
    """Processors that look at the row, at new tokens alone, and none."""
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), PROMPT)
    want = call.generate(do_sample=False, max_new_tokens=8)[0, call.prompts.width :].tolist()
    given = arguments(chain, engine, tiny_tokenizer(), PROMPT)
    assert engine.complete(**given) == want
    ids = tiny_tokenizer()(PROMPT)["input_ids"]
    assert given["prompt"] == ids and engine.complete(**arguments(chain, engine, tiny_tokenizer(), ids)) == want


def test_a_prompt_that_begins_with_another_one_is_its_own(engine: Engine) -> None:
    """What was new in one completion is prompt in the next: each has its own arguments."""
    first = engine.complete(**arguments("frequency_penalty(1.5)", engine, tiny_tokenizer(), PROMPT))
    longer = [*tiny_tokenizer()(PROMPT)["input_ids"], *first]
    call = logitkit.chain("frequency_penalty(1.5)").bind(
        tiny_model(), tiny_tokenizer(), {"input_ids": torch.tensor([longer])}
    )
    want = call.generate(do_sample=False, max_new_tokens=8)[0, len(longer) :].tolist()
    assert engine.complete(**arguments("frequency_penalty(1.5)", engine, tiny_tokenizer(), longer)) == want


def test_an_error_inside_the_engine_is_raised(engine: Engine) -> None:
    """Though the code that calls the processor hides it: no token is allowed."""
    every = list(range(engine.n_vocab()))
    given = arguments(f"suppress_tokens({every})", engine, tiny_tokenizer(), PROMPT)
    with pytest.raises(LogitkitError, match="suppress_tokens"):
        engine.complete(**given)


def test_a_processor_that_is_dropped_is_noticed(engine: Engine) -> None:
    """As the engine does with ``logit_bias``."""
    given = arguments("top_k(3)", engine, tiny_tokenizer(), PROMPT)
    with pytest.raises(ModeError, match="leave logit_bias out"):
        engine.complete(**{**given, "logits_processor": None})


def test_a_chat_is_a_prompt(engine: Engine) -> None:
    """The template of the tokenizer writes it."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = "{% for one in messages %}{{ one.role }}: {{ one.content }}\n{% endfor %}"
    given = arguments("top_k(3)", engine, tokenizer, [{"role": "user", "content": "a text"}], do_sample=True)
    assert tokenizer.decode(given["prompt"]) == "user: a text\n" and given["temperature"] == 1.0
    with pytest.raises(ModelError, match="chat template"):
        arguments("", engine, tiny_tokenizer(), [{"role": "user", "content": "a text"}])


def test_what_cannot_run_is_refused(engine: Engine) -> None:
    """Before anything is generated: methods with models, searches, other tokenizers, draft models, empty prompts."""
    tokenizer = tiny_tokenizer()
    for chain in ("cfg(1.5)", "smc(particles=4)", "byte_boundary()"):
        with pytest.raises(ModeError, match="cannot run in llama-cpp-python"):
            arguments(chain, engine, tokenizer, PROMPT)
    with pytest.raises(ModelError, match="must be that of the model"):
        arguments("", engine, foreign_tokenizer(), PROMPT)
    with pytest.raises(ModelError, match="tokens for 100"):
        arguments("", Engine(100), tokenizer, PROMPT)
    for prompt in ("", []):
        with pytest.raises(ParameterError, match="at least one token"):
            arguments("", engine, tokenizer, prompt)
    engine.draft_model = object()
    with pytest.raises(ModeError, match="draft_model must be None"):
        arguments("", engine, tokenizer, PROMPT)


def test_the_example_of_the_documentation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As it stands, with the stand-in for the engine."""
    blocks = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / "other_engines.md").read_text(), re.DOTALL)
    (example,) = [block for block in blocks if "llama_cpp" in block]
    engine = types.SimpleNamespace(Llama=lambda path, n_ctx: Engine())
    monkeypatch.setitem(sys.modules, "llama_cpp", engine)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda path: tiny_tokenizer())
    monkeypatch.chdir(tmp_path)
    NgramTable.train(["It was the text"], tiny_tokenizer()).save("book.safetensors")
    exec(compile(example, "other_engines.md", "exec"), {})
