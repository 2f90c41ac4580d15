"""Chains in MLX-LM on a CPU: the tokens of `generate`, samples of the chain, and refusals."""

from __future__ import annotations

import collections
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest
import torch
from engine_prompts import PROMPTS, TOKENS_ONLY_CHAINS
from mlx_lm.generate import generate_step, speculative_generate_step
from mlx_lm.utils import load_model
from scipy.stats import chisquare

import logitkit
from logitkit.adapters.mlx import arguments
from logitkit.errors import ModeError, ModelError, ParameterError
from logitkit.processors.ngram import NgramTable
from logitkit.registry.laws import tiny_model, tiny_tokenizer

NEW = 8


@pytest.fixture(name="models", scope="module")
def models_of_mlx(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Two tiny models as models of MLX."""
    loaded = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("model")
        tiny_model(seed).save_pretrained(folder)
        loaded.append(load_model(Path(folder))[0])
    return loaded


@pytest.fixture(name="table", scope="module")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a small n-gram table."""
    path = str(tmp_path_factory.mktemp("table") / "table.safetensors")
    NgramTable.train(["the text of a prompt", "one two three"], tiny_tokenizer()).save(path)
    return path


def until_the_end(tokens: Any) -> list[int]:
    """Return tokens up to an end token, as `generate` stops."""
    found = []
    for token in tokens:
        found.append(int(token))
        if len(found) == NEW or found[-1] == tiny_tokenizer().eos_token_id:
            break
    return found


def expected(prompt: str, chain: str) -> list[int]:
    """Return the tokens of `generate`."""
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), prompt)
    out = call.generate(do_sample=False, max_new_tokens=NEW)
    return [int(token) for token in out[0, call.prompts.width :]]


@pytest.mark.parametrize("chain", TOKENS_ONLY_CHAINS)
def test_the_tokens_are_those_of_generate(chain: str, models: list[Any], table: str) -> None:
    """On five prompts."""
    chain = chain.replace("TABLE", table)
    for prompt in PROMPTS:
        given = arguments(chain, tiny_tokenizer(), prompt)
        steps = generate_step(mx.array(given.pop("prompt")), models[0], max_tokens=NEW, **given)
        assert until_the_end(token for token, _ in steps) == expected(prompt, chain)


def test_sampled_tokens_follow_the_chain(models: list[Any]) -> None:
    """Chi-squared over the first token, at one false alarm in 10,000."""
    chain = "temperature(0.8) | top_k(6)"
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), PROMPTS[0])
    ids = call.inputs["input_ids"]
    with torch.inference_mode():
        law = call.processors(ids, tiny_model()(ids).logits[:, -1]).softmax(-1)[0]
    mx.random.seed(0)
    given = arguments(chain, tiny_tokenizer(), PROMPTS[0], do_sample=True)
    scores = given["logits_processors"][0](mx.array(given["prompt"]), models[0](mx.array([given["prompt"]]))[:, -1])
    logprobs = scores - mx.logsumexp(scores, keepdims=True)
    drawn = collections.Counter(int(token) for token in given["sampler"](mx.broadcast_to(logprobs, (2000, 272))))
    kept = [int(token) for token in law.nonzero()[:, 0]]
    assert set(drawn) <= set(kept)
    wanted = [float(law[token]) * 2000 for token in kept]
    assert chisquare([drawn[token] for token in kept], [one * 2000 / sum(wanted) for one in wanted]).pvalue > 1e-4


def test_what_cannot_run_is_refused() -> None:
    """Before anything is generated."""
    for chain in ("cfg(1.5)", "smc(particles=4)", "byte_boundary()"):
        with pytest.raises(ModeError, match="cannot run in mlx-lm"):
            arguments(chain, tiny_tokenizer(), PROMPTS[0])
    with pytest.raises(ParameterError, match="at least one token"):
        arguments("", tiny_tokenizer(), "")
    with pytest.raises(ModelError, match="chat template"):
        arguments("", tiny_tokenizer(), [{"role": "user", "content": "a text"}])


def test_a_loop_that_hides_the_prompt_is_refused(models: list[Any]) -> None:
    """With a draft model a processor is given the new tokens alone, and with a filled cache what is read behind it."""
    given = arguments("top_k(3)", tiny_tokenizer(), PROMPTS[0])
    ids = mx.array(given.pop("prompt"))
    with pytest.raises(ModeError, match="leave draft_model and prompt_cache out"):
        list(speculative_generate_step(ids, *models, max_tokens=NEW, num_draft_tokens=2, **given))
    with pytest.raises(ModeError, match="leave draft_model and prompt_cache out"):
        list(generate_step(ids[3:], models[0], max_tokens=NEW, **given))


def test_the_example_of_the_documentation(
    models: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: str
) -> None:
    """As it stands, on a tiny model."""
    page = (Path(__file__).parents[2] / "docs" / "other_engines.md").read_text()
    (example,) = [block for block in re.findall(r"```py\n(.*?)```", page, re.DOTALL) if "mlx_lm" in block]
    wrapper = mlx_lm.tokenizer_utils.TokenizerWrapper(tiny_tokenizer())
    monkeypatch.setattr(mlx_lm, "load", lambda path: (models[0], wrapper))
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda path: tiny_tokenizer())
    monkeypatch.chdir(tmp_path)
    NgramTable.load(table).save("book.safetensors")
    exec(compile(example, "other_engines.md", "exec"), {})
