"""The example that tunes a model, and the studies of tuned pairs and amateurs, by hand and on tiny models."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
from test_examples import example

import logitkit
from logitkit import models
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from studies import contrastive_amateur, proxy_tuning
from studies.records import read_records

TEXT = "The light was green over there.\nNobody came down.\n\n" * 60
PASSAGES = [f"Number {n} said it. Then they all walked {n} miles to the old house" for n in range(14)]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small book and passages; names of models are seeds of tiny models."""

    def load(name: str, like: Any = None) -> tuple[Any, Any]:
        return tiny_model(int(name)), tiny_tokenizer()

    monkeypatch.setattr(models, "load", load)
    (tmp_path / proxy_tuning.BOOK).write_text(TEXT + "*** END OF the notes", encoding="utf-8")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in PASSAGES)
    (tmp_path / "lambada_test.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "module",
    [contrastive_amateur, proxy_tuning, example("tune_a_small_pair")],
    ids=lambda m: m.__name__,
)
def test_examples_run(module: ModuleType) -> None:
    """The examples in the docstrings give the output that they show."""
    assert doctest.testmod(module).failed == 0


def test_a_model_is_tuned_on_a_book_and_saved(tmp_path: Path) -> None:
    """The loss falls, the folder is a checkpoint, and the model that was loaded from elsewhere is as it was."""
    for part in (tiny_model(), tiny_tokenizer()):
        part.save_pretrained(tmp_path / "small")
    (tmp_path / "book.txt").write_text(TEXT[:900] + "# the rest is not read " * 10, encoding="utf-8")
    run = example("tune_a_small_pair").main
    options: dict[str, Any] = {"epochs": 2, "rows": 4, "length": 32, "rate": 1e-2, "encoding": "utf-8"}
    losses = run(str(tmp_path / "small"), tmp_path / "book.txt", tmp_path / "tuned", share=0.8, **options)
    assert len(losses) == 2 and losses[1] < losses[0] - 0.1
    text = " Nobody came down."
    before, after = (
        logitkit.score(*models.load(str(tmp_path / name)), "there.", text)[0].total for name in ("small", "tuned")
    )
    assert after > before + 1
    with pytest.raises(typer.BadParameter, match="must not exist"):
        run(str(tmp_path / "small"), tmp_path / "book.txt", tmp_path / "tuned", share=0.8, **options)


@pytest.mark.parametrize(
    ("name", "content", "encoding", "message"),
    [
        ("book.txt", b"", "utf-8", "must hold an example"),
        ("book.txt", b"caf\xe9", "utf-8", "must be the encoding of"),
        ("book.txt", b"text", "klingon", "must be the encoding of"),
        ("answers.jsonl", b'{"prompt": "a", "completion": "b"}\n{"prompt": "a"}', "utf-8", "line 2 must be an object"),
        ("answers.jsonl", b'{"prompt": "a", "completion": 3}', "utf-8", "line 1 must be an object"),
        ("answers.jsonl", b"not JSON", "utf-8", "line 1 must be an object"),
    ],
)
def test_texts_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, encoding: str, message: str
) -> None:
    """One error before anything is trained, and no folder."""
    monkeypatch.setattr(models, "load", lambda name: (tiny_model(), tiny_tokenizer()))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(typer.BadParameter, match=message):
        example("tune_a_small_pair").main("small", tmp_path / name, tmp_path / "tuned", encoding=encoding)
    assert not (tmp_path / "tuned").exists()


def test_only_completions_have_a_loss(tmp_path: Path) -> None:
    """By hand: labels of the prompt and of the padding are -100, the end token has one, and a long prompt is cut."""
    tuner, tokenizer = example("tune_a_small_pair"), tiny_tokenizer()
    lines = [json.dumps({"prompt": "ab", "completion": "cd"}), json.dumps({"prompt": "x" * 50, "completion": "y"})]
    examples = tuner.answer_examples(tokenizer, lines, 8)
    answer = [*tokenizer("cd", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    prompt = tokenizer("ab")["input_ids"]
    assert examples[0] == (prompt + answer, [-100] * len(prompt) + answer)
    assert [len(row) for row in examples[1]] == [8, 8]
    ids, mask, labels = tuner.padded(examples, 0)
    assert ids.shape == (2, 8) and mask[0].sum() == len(examples[0][0])
    assert labels[0, len(prompt) + 3 :].tolist() == [-100] * (8 - len(prompt) - 3)
    (tmp_path / "answers.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    blocks = tuner.book_examples(tokenizer, "abcdefghij", 4)
    assert all(len(block) == 4 for block, _ in blocks)


def test_scores_of_passages_are_those_of_the_registered_methods() -> None:
    """Bits of the study equal `logitkit.score` under dexperts and ensemble, and after a prompt plain scores."""
    tokenizer = tiny_tokenizer()
    large, tuned, untuned = (tiny_model(seed) for seed in range(3))
    readers = [proxy_tuning.PassageReader(model, tokenizer) for model in (large, tuned, untuned)]
    texts = ["It was late.", "Nobody came down to them."]
    chains = {
        proxy_tuning.LARGE: "",
        proxy_tuning.PROXY[0.25]: "dexperts(expert='tuned', antiexpert='untuned', alpha=0.25)",
        proxy_tuning.MIXED[0.7]: "ensemble(models=['tuned'], weights=[0.7, 0.3])",
    }
    found = list(proxy_tuning.read_passages(readers, tokenizer, texts))
    resources = {"tuned": tuned, "untuned": untuned}
    for name, chain in chains.items():
        used = {key: model for key, model in resources.items() if f"'{key}'" in chain}
        options: dict[str, Any] = {"resources": used, "tokenizers": dict.fromkeys(used, tokenizer)}
        scored = logitkit.score(large, tokenizer, tokenizer.bos_token, texts, chain=chain, **options)
        want = [-one.total / torch.log(torch.tensor(2.0)).item() for one in scored]
        assert [record["bits"][name] for record in found] == pytest.approx(want, rel=1e-4)
    reader = proxy_tuning.PassageReader(large, tokenizer, "A title:\n\n")
    quoted = list(proxy_tuning.read_passages([reader], tokenizer, texts, "title and author"))
    scored = logitkit.score(large, tokenizer, "A title:\n\n", texts)
    want = [-one.total / torch.log(torch.tensor(2.0)).item() for one in scored]
    assert [record["bits"]["title and author"] for record in quoted] == pytest.approx(want, rel=1e-4)


def test_proxy_tuning_reads_what_is_missing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting on the development passages, the chosen prompt on the others; no text is kept."""
    monkeypatch.setattr(proxy_tuning, "PASSAGE", 24)
    monkeypatch.setattr(proxy_tuning, "results", lambda records: {})
    out = data / "proxy.jsonl"
    for _ in range(2):
        proxy_tuning.main(tuned="1", data=data, large="0", small="2", items=12, rows=4, out=out)
        records = read_records(out)
        halves = [proxy_tuning.split(record["item"]) for record in records if "large model" in record["bits"]]
        assert set(halves) == {"development", "held-out"}
        assert len(records) == 12 + 3 * halves.count("development") + halves.count("held-out")
    assert "light" not in out.read_text(encoding="utf-8")
    rest = proxy_tuning.parts(data / proxy_tuning.BOOK)[1]
    assert "notes" not in rest and all(len(text) == 24 for _, text in proxy_tuning.passages(rest))


def test_settings_of_proxy_tuning_are_chosen_on_development_passages() -> None:
    """Held-out passages prefer another setting, and only they are compared."""
    labels = [proxy_tuning.LARGE, proxy_tuning.TUNED, proxy_tuning.UNTUNED]
    labels += [setting for settings in proxy_tuning.ARMS.values() for setting in settings]
    records = []
    for number in range(12):
        item = f"passage {number}"
        best = 0.1 if proxy_tuning.split(item) == "development" else 1.0
        found = dict.fromkeys(labels, 200.0 + number) | {proxy_tuning.PROXY[best]: 100.0}
        records.append({"item": item, "bytes": 100, "bits": found})
    tables = proxy_tuning.results(records)
    held_out = sum(proxy_tuning.split(record["item"]) == "held-out" for record in records)
    assert f"| dexperts, alpha 0.1 | chosen | {held_out} | 2." in tables["passages"]
    assert f"| dexperts, alpha 0.1 - large model | bits a byte | {held_out} | +0.000 [" in tables["comparisons"]


def test_settings_are_compared_on_the_same_passages() -> None:
    """An easy passage that only one setting has read does not make this setting the chosen one."""
    names = [name for name in map("passage {}".format, range(30)) if proxy_tuning.split(name) == "development"][:2]
    bits = dict(zip(proxy_tuning.PROMPTS, (150.0, 140.0, 160.0), strict=True))
    records = [{"item": names[0], "bytes": 100, "bits": {prompt: found}} for prompt, found in bits.items()]
    records.append({"item": names[1], "bytes": 100, "bits": {proxy_tuning.PROMPTS[0]: 10.0}})
    assert proxy_tuning.chosen_setting(records, "prompting") == proxy_tuning.PROMPTS[1]


@pytest.mark.parametrize("pair", contrastive_amateur.PAIRS)
def test_last_words_are_scored_as_contrastive_scores_them(pair: str) -> None:
    """Loss and greedy hits of every setting equal those of the registered processor with the same window."""
    tokenizer, expert = tiny_tokenizer(), tiny_model()
    amateur = tiny_model(1) if pair == "small amateur" else expert
    items = [("Then they all walked to the old", " house"), ("They said that it was", " it")]
    found = list(contrastive_amateur.read_batch(pair, expert, amateur, tokenizer, items))
    for setting in contrastive_amateur.settings_of(pair)[::4]:
        chain = f"contrastive(amateur='weak', alpha=0.1, {setting.name})"
        for (before, word), results in zip(items, found, strict=True):
            (scored,) = logitkit.score(expert, tokenizer, before, word, chain=chain, resources={"weak": amateur})
            loss, hit = results[setting.name]
            assert (-scored.total == float("inf")) if loss is None else loss == pytest.approx(-scored.total, rel=1e-3)
            assert not (hit and loss is None)


def test_contrastive_decoding_reads_what_is_missing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pairs, each with its own number of passages; a second run adds nothing, and no text is kept."""
    out = data / "contrastive.jsonl"
    for _ in range(2):
        options: dict[str, Any] = {"large": "0", "small": "1", "model": "2", "rows": 4, "out": out}
        contrastive_amateur.main(data=data, items=10, own_items=14, **options)
        records = read_records(out)
        assert [sum(r["pair"] == pair for r in records) for pair in contrastive_amateur.PAIRS] == [10, 14]
    assert "walked" not in out.read_text(encoding="utf-8")
    tables = contrastive_amateur.results(records)
    assert tables["development"].count("chosen") == 2 and "own window: window=" in tables["comparisons"]


def test_the_setting_of_an_amateur_is_chosen_on_development_passages() -> None:
    """Of nine settings the one with the most words right; held-out passages do not count."""
    records = []
    for number in range(8):
        half = "development" if number < 4 else "held-out"
        best = contrastive_amateur.settings_of("own window")[3 if half == "development" else 5].name
        names = ["plain", *(s.name for s in contrastive_amateur.settings_of("own window"))]
        found = {name: [1.0, name == best] for name in names}
        records.append({"pair": "own window", "half": half, "item": str(number), "results": found})
    assert contrastive_amateur.chosen_setting(records, "own window") == "window=8, beta=0.5, temperature=1"
