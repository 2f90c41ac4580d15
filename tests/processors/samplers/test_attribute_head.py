"""A head on the states of the generating model scores candidates without a forward of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fakes import own_model, seeded

import logitkit
from logitkit.errors import FileFormatError, ModelError, ParameterError
from logitkit.processors.cascade import TrainingSettings
from logitkit.processors.engine import Binding
from logitkit.processors.samplers import (
    AttributeExamples,
    AttributeHead,
    AttributeHeadConfig,
    AttributeNetwork,
    CaptureSettings,
    LabelledText,
    ModelFingerprint,
    attribute_examples,
    read_labelled_texts,
)
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import WIDTH, encoder_decoder_model

CONFIG = AttributeHeadConfig(hidden_size=32, embedding_size=32, width=8, blocks=1)


def head(model: Any = None) -> AttributeHead:
    """A random head."""
    network = seeded(lambda: AttributeNetwork(CONFIG), 3)
    with torch.no_grad():
        network.leave[1].weight.mul_(10)
    trained_for = ModelFingerprint.of(model or tiny_model(), tiny_tokenizer())
    return AttributeHead(network, CONFIG, base_rate=0.25, trained_for=trained_for, report={})


def value(model: Any, row: list[int]) -> float:
    """log P(a | row) by a forward over the row without its last token."""
    with torch.no_grad():
        hidden = model.base_model(torch.tensor([row[:-1]])).last_hidden_state[0, -1]
        embedded = model.get_input_embeddings()(torch.tensor(row[-1]))
        return float(torch.nn.functional.logsigmoid(head().network(torch.cat([hidden, embedded]))))


def test_a_head_by_hand() -> None:
    """A network of one weight, 2 for the first number of the state: log sigmoid(2 x - 1)."""
    config = AttributeHeadConfig(hidden_size=1, embedding_size=1, width=2, blocks=0)
    network = AttributeNetwork(config)
    with torch.no_grad():
        network.enter.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        network.enter.bias.zero_()
        network.leave[1].weight.copy_(torch.tensor([[2.0, 0.0]]))
        network.leave[1].bias.fill_(-1.0)
    own = AttributeHead(network, config, base_rate=0.5, trained_for=ModelFingerprint("a", "b"), report={})
    got = own(torch.tensor([[3.0, 9.0], [-3.0, 9.0]]))  # the norm makes 1 and -1 of 3 and -3
    want = [-math.log1p(math.exp(-1.0)), -math.log1p(math.exp(3.0))]
    assert got.tolist() == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize("steps", ["", "temperature(0.7) | "])
def test_differences_are_those_of_forwards_over_the_rows(steps: str) -> None:
    """While a call runs, behind a step that changes the scores, and for rows that were never seen before."""
    model = own_model()
    chain = f"{steps}attribute({{'head': 'own'}}, strength=0.5, top=6)"
    call = logitkit.chain(chain).bind(model, tiny_tokenizer(), ["ab", "a prompt"], own=head())
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    step = call.composite.parts[-1][1]
    forward = type(step).__call__

    def watched(self: Any, rows: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append((rows, scores, forward(self, rows, scores)))
        return seen[-1][2]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(step), "__call__", watched)
        call.generate(max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert len(seen) == 4
    for rows, scores, got in seen[::3]:
        for number, row in enumerate(rows.tolist()):
            own = call.prompts.tokens(number)
            tail, logp = row[call.prompts.width :], scores[number].log_softmax(-1)
            before = value(model, [*own, *tail]) if tail else math.log(0.25)
            for token in (got[number] > -torch.inf).nonzero()[:, 0].tolist():
                want = float(logp[token]) + 0.5 * (value(model, [*own, *tail, token]) - before)
                assert math.isclose(float(got[number, token]), want, abs_tol=2e-4)


def test_no_forward_of_its_own() -> None:
    """The states are those of the model's own forwards; only behind changed scores are they read again."""
    for steps, extra in (("", 0), ("top_p(0.9) | ", 0), ("temperature(0.5) | ", 5)):
        model, count = own_model(), 0

        def add(*_: Any) -> None:
            nonlocal count
            count += 1

        call = logitkit.chain(f"{steps}attribute({{'head': 'own'}})").bind(model, tiny_tokenizer(), "ab", own=head())
        model.base_model.register_forward_hook(add)
        call.generate(max_new_tokens=5, do_sample=False, eos_token_id=None)
        assert count == 5 + extra


def test_beams_add_the_differences_up() -> None:
    """Conditional beam search finds the text with the largest log p(x) + strength log P(a | x)."""
    model, tokens = own_model(), (64, 65, 66)
    others = [token for token in range(WIDTH) if token not in tokens]
    chain = f"suppress_tokens({others}) | attribute({{'head': 'own'}}, strength=4.0, top=3)"
    call = logitkit.chain(chain).bind(model, tiny_tokenizer(), "ab", own=head())
    out = call.generate(num_beams=27, length_penalty=0.0, max_new_tokens=3, do_sample=False, eos_token_id=None)
    prompt, totals = call.prompts.tokens(0), {}
    for text in [(a, b, c) for a in tokens for b in tokens for c in tokens]:
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *text]])).logits[0, len(prompt) - 1 : -1, list(tokens)]
        logp = logits.double().log_softmax(-1).gather(1, torch.tensor([[t - 64] for t in text])).sum()
        totals[text] = float(logp) + 4.0 * value(model, [*prompt, *text])
    assert tuple(out[0, len(prompt) :].tolist()) == max(totals, key=totals.__getitem__)


def test_training_finds_the_attribute_of_a_text(tmp_path: Path) -> None:
    """Texts of two kinds of letters: the head tells them apart on texts that were held out, and prefers the letters."""
    generator = torch.Generator().manual_seed(0)
    texts = []
    for number in range(40):
        letters = "ab" if number % 2 else "xy"
        picks = torch.randint(0, 2, (8,), generator=generator).tolist()
        texts.append(LabelledText(text="".join(letters[pick] for pick in picks), label=float(number % 2)))
    model = own_model()
    examples = attribute_examples(texts, model, tiny_tokenizer(), tmp_path, CaptureSettings(positions=4))
    assert len(examples.labels) == 160
    own = AttributeHead.fit(
        examples, CONFIG, trained_for=head().trained_for, settings=TrainingSettings(epochs=12, batch_size=64)
    )
    assert own.report["accuracy"] == 1.0 and own.report["held_out_loss"] < own.report["base_loss"] / 2
    call = logitkit.chain("attribute({'head': 'own'}, top=272, strength=8.0)").bind(
        model, tiny_tokenizer(), "ab", own=own
    )
    shift = call.composite(call.prompts.ids, torch.zeros(1, WIDTH))[0]
    a, x = (tiny_tokenizer().convert_tokens_to_ids(letter) for letter in "ax")
    assert shift[a] > shift[x] + 1
    own.save(tmp_path / "head")
    again = AttributeHead.load(tmp_path / "head")
    assert torch.equal(again(examples.features), own(examples.features)) and again.report == own.report


def test_captured_states_are_those_of_each_text_alone(tmp_path: Path) -> None:
    """Behind a prompt, without one, and cut; a second capture reads the files."""
    model, texts = own_model(), [LabelledText(text=" c", label=1, prompt="ab"), LabelledText(text="abcdefgh", label=0)]
    advanced: list[int] = []
    settings = CaptureSettings(positions=3, tokens=6)
    closed = own_model()
    closed.base_model.register_forward_hook(lambda *_: pytest.fail("the states are read again"))
    for reader in (model, closed):
        examples = attribute_examples(texts, reader, tiny_tokenizer(), tmp_path, settings, advance=advanced.append)
        assert examples.texts.tolist() == [0, 0, 0, 1, 1, 1] and examples.labels.tolist() == [1, 1, 1, 0, 0, 0]
        with torch.no_grad():
            ids = tiny_tokenizer()("ab c")["input_ids"]
            hidden = model.base_model(torch.tensor([ids])).last_hidden_state[0]
            embedded = model.get_input_embeddings()(torch.tensor([*ids[2:], 257]))
        torch.testing.assert_close(examples.features[:3], torch.cat([hidden[1:], embedded], dim=-1))
        last = model.get_input_embeddings()(torch.tensor(tiny_tokenizer()("abcdef")["input_ids"][-1]))
        torch.testing.assert_close(examples.features[-1, 32:], last)
    assert advanced == [2, 2]


def test_states_of_other_texts_are_refused(tmp_path: Path) -> None:
    """Other texts, another model, other settings, and damaged files; each error names the way out."""
    text = [LabelledText(text="abc", label=1)]
    attribute_examples(text, own_model(), tiny_tokenizer(), tmp_path)
    for other, model, settings, part in (
        ([LabelledText(text="abd", label=1)], own_model(), CaptureSettings(), "texts"),
        (text, tiny_model(1), CaptureSettings(), "model"),
        (text, own_model(), CaptureSettings(positions=2), "positions"),
    ):
        with pytest.raises(FileFormatError, match=f"of the same {part} to be resumed.*remove the folder"):
            attribute_examples(other, model, tiny_tokenizer(), tmp_path, settings)
    (tmp_path / "states" / "00000.safetensors").write_bytes(b"torn")
    with pytest.raises(FileFormatError, match=r"must hold captured states.*remove the file"):
        attribute_examples(text, own_model(), tiny_tokenizer(), tmp_path)
    (tmp_path / "states" / "settings.json").write_text("[]")
    with pytest.raises(FileFormatError, match="must hold the settings of a run"):
        attribute_examples(text, own_model(), tiny_tokenizer(), tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "must hold a labelled text"),
        ("text", "line 1 of"),
        ('{"text": "a"}', "KeyError"),
        ('{"text": "a", "label": 2}', "from 0 to 1"),
        ('{"text": "a", "label": "1"}', "from 0 to 1"),
        ('{"text": "a", "label": NaN}', "line 1 of"),
        ('{"text": "", "label": 1}', "empty text"),
        ('{"text": 3, "label": 1}', "no text"),
        ("[1]", "line 1 of"),
    ],
)
def test_labels_of_another_form_are_one_error(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(line)
    with pytest.raises(FileFormatError, match=words):
        read_labelled_texts(path)
    with pytest.raises(FileFormatError, match="must be a file of labelled texts"):
        read_labelled_texts(tmp_path)


def test_refused_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another model or tokenizer, another kind of file, no head, and labels of one kind."""

    def bound(name: str = "own", model: Any = None, **named: Any) -> Any:
        chain = logitkit.chain(f"attribute({{'head': {name!r}}})")
        return chain.bind(model or tiny_model(), tiny_tokenizer(), "a", **named)

    with pytest.raises(ModelError, match="trained for this model, got one for another model"):
        bound(model=tiny_model(1), own=head())
    other = head()
    other.trained_for = other.trained_for._replace(tokenizer="x")
    with pytest.raises(ModelError, match="another tokenizer"):
        bound(own=other)
    with monkeypatch.context() as patch, pytest.raises(ModelError, match="which this engine hides"):
        patch.setattr(Binding, "has_model", False)
        bound(own=head())
    with pytest.raises(ModelError, match="AttributeHead, got dict"):
        bound(own={})
    with pytest.raises(ParameterError, match="a folder, or a name passed to bind"):
        bound("nowhere")
    with pytest.raises(ParameterError, match="a folder"):
        logitkit.chain("attribute({'head': 3})").bind(tiny_model(), tiny_tokenizer(), "a")
    with pytest.raises(ModelError, match="decoder-only"):
        model = encoder_decoder_model()
        bound(model=model, own=head(model))
    head().save(tmp_path)
    bound(str(tmp_path))
    metadata = json.loads((tmp_path / "head.json").read_text())
    for changed in ({"base_rate": 1.0}, {"trained_for": {"model": "a"}}, {"report": None}):
        (tmp_path / "head.json").write_text(json.dumps(metadata | changed))
        with pytest.raises(FileFormatError, match="base_rate, trained_for and report"):
            AttributeHead.load(tmp_path)
    (tmp_path / "head.json").write_text(json.dumps(metadata | {"kind": "router head"}))
    with pytest.raises(FileFormatError, match="attribute head"):
        AttributeHead.load(tmp_path)
    examples = AttributeExamples(torch.zeros(4, 64), torch.ones(4), torch.arange(4))
    with pytest.raises(ParameterError, match="labels must be of two kinds"):
        AttributeHead.fit(examples, CONFIG, trained_for=head().trained_for)
