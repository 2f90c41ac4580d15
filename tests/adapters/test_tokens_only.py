"""Chains in an engine without a model: the scores equal those of a bound chain, or the chain is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import logitkit
from logitkit.adapters import tokens_only
from logitkit.errors import FileFormatError, LogitkitError, ModeError, ModelError
from logitkit.processors.ngram import NgramTable
from logitkit.registry import Chain, Plugin, Registry
from logitkit.registry.laws import foreign_tokenizer, tiny_model, tiny_tokenizer

PROMPT = "the text of a prompt, the other text"
REFUSED = {
    "anchor",
    "byte_boundary",
    "byte_ensemble",
    "cad",
    "cascade",
    "cfg",
    "contrastive",
    "core",
    "crossover",
    "deepen",
}
REFUSED |= {"dexperts", "dola", "ensemble", "mti", "retokenize", "router", "uscd"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a small n-gram table."""
    path = tmp_path_factory.mktemp("table") / "style.safetensors"
    NgramTable.train(["a prompt of the other text", "the text of a prompt"], tiny_tokenizer()).save(path)
    return str(path)


def example(name: str, table: str) -> Chain:
    """Return the example of a processor as a chain, with the n-gram table in a file."""
    spec = logitkit.describe(name)
    return Chain((spec.example or f"{name}()").replace("table='style'", f"table={table!r}"))


@pytest.mark.parametrize("name", logitkit.names())
def test_every_processor_runs_alike_or_is_refused_with_the_reason(name: str, table: str) -> None:
    """At each greedy step the scores equal those of the chain bound to a model bit for bit, or it is refused."""
    chain = example(name, table)
    if name in REFUSED:
        with pytest.raises(ModeError, match=f"^{name}: cannot run in vllm: .+; run it with transformers' generate$"):
            tokens_only.check(chain, "vllm")
        return
    tokens_only.check(chain, "vllm")
    model, tokenizer = tiny_model(), tiny_tokenizer()
    call = chain.bind(model, tokenizer, PROMPT)
    alone = tokens_only.bound(chain, "vllm", tokenizer, call.prompts.tokens(0), ends=[tokenizer.eos_token_id])
    row = call.inputs["input_ids"]
    for _ in range(6):
        with torch.no_grad():
            scores = model(row).logits[:, -1].float()
        want = call.composite(row, scores)
        assert torch.equal(alone(row, scores), want)
        row = torch.cat([row, want.argmax(-1, keepdim=True)], dim=1)


def registered(**fields: Any) -> Registry:
    """Return a registry of one third-party Spec, named ``theirs``."""
    given = {"name": "theirs", "summary": "s", "source": "s", "target": "transformers:TemperatureLogitsWarper"}
    return Registry([Plugin(name="p", origin="p 1", specs=(logitkit.Spec(**given | fields),))])


@pytest.mark.parametrize("words", ["None.", "no extra forward", "nothing", ""])
def test_the_wording_of_the_cost_decides_nothing(words: str) -> None:
    """A processor that declares no extra forwards is accepted, however its author describes the cost."""
    tokens_only.check(Chain("theirs(0.5)", registry=registered(cost=words)), "vllm")


@pytest.mark.parametrize("kind", ["prompt", "gated", "every_step", "every_byte"])
def test_declared_forwards_are_refused(kind: Any) -> None:
    """A processor that declares extra forwards is refused, even if its description says "none"."""
    chain = Chain("theirs(0.5)", registry=registered(extra_forwards=kind, cost="none"))
    with pytest.raises(ModeError, match="theirs: cannot run in vllm"):
        tokens_only.check(chain, "vllm")


def test_tables_of_any_processor_are_loaded(table: str) -> None:
    """A third party's processor gets the tables that its ``needs_tables`` declare, as the built-in ones do."""
    target = "logitkit.processors.ngram.style:NgramStyle"
    chain = Chain(f"theirs(table={table!r})", registry=registered(target=target, needs_tables=("table",)))
    assert set(tokens_only.tables(chain)) == {table}
    assert tokens_only.bound(chain, "vllm", tiny_tokenizer(), [1, 2]).parts[0][0] == "theirs"


def test_undeclared_forwards_are_refused_when_they_are_requested() -> None:
    """A processor that declares no extra forwards and asks for a reader is refused when it is bound."""
    chain = Chain("theirs()", registry=registered(target="logitkit.processors.contrast.processors:CFG"))
    tokens_only.check(chain, "vllm")
    with pytest.raises(ModeError, match="theirs: cannot run in vllm: vllm gives a processor tokens and scores"):
        tokens_only.bound(chain, "vllm", tiny_tokenizer(), [1, 2])


def test_tables_are_checked(table: str) -> None:
    """An absent table is refused by check, and a table of another tokenizer when the engine's tokenizer is known."""
    with pytest.raises(FileFormatError, match="must be a file"):
        tokens_only.check(Chain("ngram_style(table='/nowhere.safetensors')"), "vllm")
    with pytest.raises(ModelError, match="must be trained with the generating model's tokenizer"):
        tokens_only.bound(example("ngram_style", table), "vllm", foreign_tokenizer(), [1, 2])
    assert tokens_only.tables(example("ngram_style", table)) == tokens_only.tables(example("ngram_style", table))


def test_the_absent_model_refuses_attributes() -> None:
    """Attributes of the absent model raise a named error; special methods raise AttributeError, as copying expects."""
    model = tokens_only.NoModel("vllm", [2])
    assert model.generation_config.eos_token_id == [2]
    with pytest.raises(LogitkitError, match="not its model"):
        _ = model.lm_head
    with pytest.raises(AttributeError):
        _ = model.__deepcopy__
