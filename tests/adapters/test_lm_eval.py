"""The harness's model over a chain: an empty chain equals the hf model, other chains equal logitkit's scoring."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import logitkit
from logitkit.cli import app
from logitkit.errors import ModeError, ParameterError, PromptError
from logitkit.processors.ngram import NgramTable
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
from logitkit.registry.scoring import score

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'logitkit[lm-eval]'")

from logitkit.adapters import lm_eval as adapter

ChainLM = adapter.ChainLM
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")

WORDS = ["the ship left the harbour", "a horse ran over the hill", "rain fell on the old town", "the bell rang"]
TASKS: dict[str, dict[str, Any]] = {
    "choices": {"output_type": "multiple_choice", "doc_to_choice": ["yes", "no way", "why"], "doc_to_target": 1},
    "passages": {"output_type": "loglikelihood_rolling", "doc_to_target": "{{text}}", "doc_to_text": ""},
    "texts": {
        "output_type": "generate_until",
        "doc_to_target": "{{text}}",
        "generation_kwargs": {"until": ["t"], "max_gen_toks": 6, "do_sample": False},
    },
}
CUT = {"doc_to_text": "{{text}} th", "target_delimiter": ""}
TASKS["cut"] = CUT | {"output_type": "multiple_choice", "doc_to_choice": ["e", "an"], "doc_to_target": 1}
TASKS["cut_texts"] = TASKS["texts"] | CUT
METRICS = {
    "cut": ["acc"],
    "cut_texts": ["exact_match"],
    "choices": ["acc"],
    "passages": ["word_perplexity"],
    "texts": ["exact_match"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, a YAML task of each kind over a local file, and an n-gram table."""
    folder = tmp_path_factory.mktemp("harness")
    tiny_model().save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    foreign_model().save_pretrained(folder / "foreign")
    foreign_tokenizer().save_pretrained(folder / "foreign")
    NgramTable.train(WORDS, tiny_tokenizer()).save(folder / "words.safetensors")
    (folder / "words.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in WORDS))
    tasks = folder / "tasks"
    tasks.mkdir()
    for name, parts in TASKS.items():
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "words.jsonl")}}}
        task = {"task": name, "test_split": "test", "doc_to_text": "{{text}}:", **data, **parts}
        task["metric_list"] = [{"metric": metric} for metric in METRICS[name]]
        (tasks / f"{name}.yaml").write_text(json.dumps(task))
    return folder


def evaluate(place: Path, model: str, tasks: list[str], **arguments: Any) -> dict[str, list[Any]]:
    """Return the raw responses of a model to each item of each task."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model=model,
        model_args={"pretrained": str(place / "model"), "dtype": "float32"} | arguments,
        tasks=tasks,
        task_manager=TaskManager(include_path=str(place / "tasks"), include_defaults=False),
        device="cpu",
        batch_size=4,
        log_samples=True,
        bootstrap_iters=0,
        verbosity="ERROR",
    )
    assert found is not None
    every = {task: sorted(found["samples"][task], key=lambda sample: sample["doc_id"]) for task in tasks}
    return {task: [sample["resps"] for sample in samples] for task, samples in every.items()}


def numbers(answers: list[Any]) -> list[float]:
    """Return every number in nested responses."""
    if isinstance(answers, (list, tuple)):
        return [number for answer in answers for number in numbers(answer)]
    return [float(answers)]


def test_an_empty_chain_is_the_harness_itself(place: Path) -> None:
    """With an empty chain, log-likelihoods, rolling ones and texts equal those of hf, in padded batches of four."""
    ours, theirs = (evaluate(place, model, ["choices", "passages", "texts"]) for model in ("logitkit", "hf"))
    assert ours["texts"] == theirs["texts"]
    for task in ("choices", "passages"):
        assert numbers(ours[task]) == pytest.approx(numbers(theirs[task]), abs=2e-4), task


@pytest.mark.parametrize(
    "chain", ["cfg(1.7)", "temperature(0.5) | repetition_penalty(1.2)", "ngram_style(table='TABLE', weight=0.3)"]
)
def test_scores_and_texts_under_a_chain_equal_logitkits(place: Path, chain: str) -> None:
    """Options are scored as by logitkit.score, one prompt at a time, and texts are those of logitkit.generate."""
    chain = chain.replace("TABLE", str(place / "words.safetensors"))
    found = evaluate(place, "logitkit", ["choices", "texts"], chain=chain)
    plain = evaluate(place, "logitkit", ["choices", "texts"])
    model, tokenizer = tiny_model(), tiny_tokenizer()
    for text, answers, row in zip(WORDS, found["choices"], found["texts"], strict=True):
        options = [f" {choice}" for choice in TASKS["choices"]["doc_to_choice"]]
        want, _ = score(logitkit.chain(chain), model, tokenizer, f"{text}:", options)
        assert [answer[0][0] for answer in answers] == pytest.approx([one.total for one in want], abs=1e-4)
        assert [answer[0][1] for answer in answers] == [all(one.greedy) for one in want]
        done = logitkit.generate(model, tokenizer, f"{text}:", chain=chain, max_new_tokens=6, do_sample=False)
        assert row[0][0] == done.texts[0].split("t")[0]
    assert numbers(found["choices"]) != numbers(plain["choices"])


def test_a_search_writes_texts_and_scores_none(place: Path) -> None:
    """Texts end before the stop text, although the rows of a search move; log-likelihoods are refused by name."""
    torch.manual_seed(0)
    found = evaluate(place, "logitkit", ["texts"], chain="smc(3) | best_of()")
    assert len(found["texts"]) == len(WORDS) and not any("t" in row[0][0] for row in found["texts"])
    with pytest.raises(ModeError, match="smc must be left out, a search gives no probability"):
        evaluate(place, "logitkit", ["choices"], chain="smc(3) | best_of()")


def test_a_cut_prompt_is_scored_and_continued(place: Path) -> None:
    """Under byte_boundary, which shortens the prompt, scores and texts are still those of the text after the prompt."""
    model, tokenizer, chain = foreign_model(), foreign_tokenizer(), logitkit.chain("byte_boundary()")
    foreign = {"pretrained": str(place / "foreign"), "chain": str(chain)}
    found = evaluate(place, "logitkit", ["cut", "cut_texts"], **foreign)
    for text, answers, row in zip(WORDS, found["cut"], found["cut_texts"], strict=True):
        want, call = score(chain, model, tokenizer, f"{text} th", ["e", "an"])
        assert all(call.prompts.removed)
        assert [answer[0][0] for answer in answers] == pytest.approx([one.total for one in want], abs=1e-4)
        done = logitkit.generate(model, tokenizer, f"{text} th", chain=chain, max_new_tokens=9, do_sample=False)
        assert done.texts[0].startswith(row[0][0]) and row[0][0]
    lm = ChainLM(str(place / "foreign"), "byte_boundary()", device="cpu")
    with pytest.raises(ModeError, match="changes the prompt"):
        lm._loglikelihood_tokens([(None, tokenizer("the th")["input_ids"], [5])])


def test_other_models_are_loaded_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that a chain names is loaded once for all batches, and resources passed in Python are used."""
    loads = []
    load = adapter.models.load
    monkeypatch.setattr(adapter.models, "load", lambda name, **more: loads.append(name) or load(name, **more))
    lm = ChainLM(str(place / "model"), f"contrastive(amateur={str(place / 'model')!r})", device="cpu")
    assert lm.bound([[1, 2], [3]]).trace.readers and lm.bound([[4]]).trace.readers
    assert loads == [str(place / "model")]
    named = ChainLM(
        tiny_model(), "contrastive(amateur='weak')", tokenizer=tiny_tokenizer(), resources={"weak": tiny_model(1)}
    )
    assert "weak" in named.bound([[1, 2]]).trace.readers


def test_long_contexts_lose_their_beginning(place: Path) -> None:
    """As in hf, the last max_length tokens of a context count, also in a batch with short contexts."""
    lm = ChainLM(str(place / "model"), "", device="cpu", max_length=16, batch_size=2)
    long, short = list(range(40)), [5, 6]
    together = lm._loglikelihood_tokens([(None, long, [7, 8]), (None, short, [9] * 14)])
    assert together[0] == lm._loglikelihood_tokens([(None, long[-15:], [7, 8])])[0]
    with torch.no_grad():
        logp = tiny_model()(torch.tensor([[*long[-15:], 7]])).logits[0, -2:].double().log_softmax(-1)
    assert together[0][0] == pytest.approx(float(logp[0, 7] + logp[1, 8]), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"chain": "cfg(scale=-1)"}, ParameterError, "cfg: scale must be a finite number >= 0"),
        ({"chain": "usdc()"}, LookupError, "did you mean 'uscd'"),
        ({"batch_size": "auto"}, ParameterError, "lm-eval: batch_size must be a whole number, got 'auto'"),
        ({"mixed_precision_dtype": "float16"}, ParameterError, "lm-eval: mixed_precision_dtype must be left out"),
    ],
)
def test_bad_input_is_refused_before_a_model_loads(arguments: Any, error: Any, says: str) -> None:
    """A mistake in the chain or in a setting raises a named error before a model is loaded."""
    with pytest.raises(error, match=says):
        ChainLM("/no/such/model", **arguments)


def test_a_continuation_without_tokens_is_refused(place: Path) -> None:
    """A context and a continuation that merge into one token are refused, since no token would be scored."""
    with pytest.raises(PromptError, match="must have at least one token after the context"):
        evaluate(place, "logitkit", ["cut"], pretrained=str(place / "foreign"))


def test_every_argument_goes_to_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    """All arguments, --help included, go to the harness; an error of logitkit is printed in one line."""
    received: list[str] = []
    monkeypatch.setattr(adapter, "main", received.extend)
    given = ["run", "--help", "--model", "logitkit", "--tasks", "a,b", "-L", "3"]
    assert CliRunner().invoke(app, ["lm-eval", *given]).exit_code == 0 and received == given
    monkeypatch.setattr(adapter, "main", lambda given: ChainLM("/nowhere", "cfg(-1)"))
    bad = CliRunner().invoke(app, ["lm-eval"])
    assert bad.exit_code == 2 and "cfg: scale must be" in bad.output


@pytest.mark.slow
def test_the_command_line_takes_a_chain_with_commas(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line of the harness accepts a chain whose text contains commas."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    chain = "cad(alpha=0.5, context='the')"
    given = ["lm-eval", "--model", "logitkit", "--tasks", "choices", "--include_path", str(place / "tasks")]
    given += ["--device", "cpu", "--output_path", str(tmp_path), "--limit", "1", "--model_args"]
    done = CliRunner().invoke(app, [*given, f"pretrained={place / 'model'},chain={chain}"])
    assert done.exit_code == 0, done.output
    (results,) = tmp_path.rglob("results_*.json")
    assert json.loads(results.read_text())["config"]["model_args"]["chain"] == chain
