"""Labelled texts, and the states of a model at places of them: training data of an attribute head."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from logitkit.errors import FileFormatError, ModelError
from logitkit.execution import Engine, PerProcess, carry_out, local, value_of
from logitkit.files import parse_json, read_text
from logitkit.processors.engine.captured_outputs import HiddenStates
from logitkit.processors.engine.padded_rows import right_padded
from logitkit.processors.engine.prompts import pad_token, read_prompts
from logitkit.processors.model_facts import context_length, end_tokens, text_config
from logitkit.processors.samplers.attribute_head import AttributeExamples, AttributeHeadConfig, ModelFingerprint
from logitkit.processors.samplers.attribute_state_files import STATES, StateFiles, States


@dataclass(frozen=True, kw_only=True)
class LabelledText:
    """A text and how probable the attribute is for it.

    Attributes:
        text: the continuation.
        label: 1 with the attribute, 0 without it, or a number between.
        prompt: the text before it; empty: none.

    >>> LabelledText(text=" a good day.", label=1.0, prompt="It was").label
    1.0
    """

    text: str
    label: float
    prompt: str = ""


@dataclass(frozen=True, kw_only=True)
class CaptureSettings:
    """Settings of the capture of states.

    Attributes:
        positions: largest number of places of a text; where it has more, they are drawn, and the last one is kept.
        tokens: largest number of tokens of prompt and text together that are read.
        batch_size: texts in one forward.
        chat: whether a prompt is sent as a chat message.
        seed: of the draw of places.

    >>> CaptureSettings(positions=8).tokens
    512
    """

    positions: int = 32
    tokens: int = 512
    batch_size: int = 8
    chat: bool = False
    seed: int = 0


def read_labelled_texts(
    path: str | Path, *, text: str = "text", label: str = "label", prompt: str | None = None
) -> list[LabelledText]:
    """Read a file of JSON lines with a text and a label each.

    Args:
        path: the file.
        text, label, prompt: fields of a line; a label is true, false, or a number from 0 to 1. Without ``prompt``
            the texts stand alone.

    Raises:
        FileFormatError: the file is missing or empty, or a line is no JSON with these fields; names the line.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.jsonl"
    >>> _ = path.write_text('{"text": "fine", "label": true}')
    >>> read_labelled_texts(path)
    [LabelledText(text='fine', label=1.0, prompt='')]
    """
    try:
        lines = read_text(path, most=None).splitlines()
    except (OSError, ValueError) as error:
        raise FileFormatError(f"train-attribute: {path} must be a file of labelled texts, got {error}") from error
    fields = {"text": text, "label": label} | ({} if prompt is None else {"prompt": prompt})
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            found.append(_checked(LabelledText(**{name: row[key] for name, key in fields.items()})))
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(
                f"train-attribute: line {number} of {path} must be JSON with {', '.join(map(repr, fields.values()))}, "
                f"got {error!r}; see --field, --label and --prompt"
            ) from error
    if not found:
        raise FileFormatError(f"train-attribute: {path} must hold a labelled text, got none")
    return found


def _checked(item: LabelledText) -> LabelledText:
    """Return a labelled text whose label is a float.

    Raises:
        ValueError: texts that are none, an empty text, or a label that is no number from 0 to 1.
    """
    if not isinstance(item.text, str) or not item.text or not isinstance(item.prompt, str):
        raise ValueError("a text or prompt that is no text, or an empty text")
    if not isinstance(item.label, (bool, int, float)) or not 0 <= item.label <= 1:
        raise ValueError(f"the label {item.label!r:.40}, not true, false or a number from 0 to 1")
    return LabelledText(text=item.text, label=float(item.label), prompt=item.prompt)


def attribute_head_config(model: Any, *, width: int = 64, blocks: int = 1) -> AttributeHeadConfig:
    """Return the sizes of an attribute head for a model.

    Args:
        model: the generating model.
        width, blocks: as in `AttributeHeadConfig`.

    >>> from logitkit.registry.laws import tiny_model
    >>> attribute_head_config(tiny_model()).hidden_size
    32
    """
    hidden, embedding = text_config(model).hidden_size, model.get_input_embeddings().weight.shape[1]
    return AttributeHeadConfig(hidden_size=hidden, embedding_size=embedding, width=width, blocks=blocks)


def attribute_examples(
    items: Sequence[LabelledText],
    model: Any,
    tokenizer: Any,
    folder: str | Path,
    settings: CaptureSettings | None = None,
    *,
    advance: Callable[[int], None] = lambda count: None,
    engine: Engine = local,
    workers_load: PerProcess[tuple[Any, Any]] | None = None,
) -> AttributeExamples:
    """Return the training examples of an attribute head; an interrupted capture can be resumed.

    An end token of the model stands behind each text.

    Args:
        items: labelled texts.
        model: the generating model, which reads every text once.
        tokenizer: its tokenizer.
        folder: folder of the head. The states are kept in its folder ``states``, a file for each batch of texts.
        settings: of the capture.
        advance: called after each batch with the number of its texts, also for those read from files.
        engine: runs the batches.
        workers_load: loads model and tokenizer in a worker of another process; None: workers receive the weights.

    Raises:
        FileFormatError: the folder holds states of other texts, another model or other settings, or damaged ones.
        ModelError: a model with an encoder, or no text with two tokens.
        PromptError: a prompt that the chat template refuses.

    >>> import tempfile
    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> items = [LabelledText(text="one", label=0.0), LabelledText(text="other", label=1.0)]
    >>> examples = attribute_examples(items, tiny_model(), tiny_tokenizer(), tempfile.mkdtemp())
    >>> examples.texts.tolist()  # a place for each token behind the first, and for the end token
    [0, 0, 0, 1, 1, 1, 1, 1]
    """
    settings = settings or CaptureSettings()
    files = StateFiles(Path(folder) / STATES)
    digest = hashlib.sha256(json.dumps([asdict(item) for item in items]).encode()).hexdigest()[:16]
    files.start({"texts": digest, **ModelFingerprint.of(model, tokenizer)._asdict(), **asdict(settings)})
    batches = [*range(0, len(items), settings.batch_size)]  # number of the first text of each
    found = {begin: states for number, begin in enumerate(batches) if (states := files.read(number)) is not None}
    for begin in found:
        advance(len(items[begin : begin + settings.batch_size]))

    def keep(begin: int, states: States) -> None:
        files.write(begin // settings.batch_size, states)
        found[begin] = states
        advance(len(items[begin : begin + settings.batch_size]))

    job = functools.partial(_states, workers_load or (model, tokenizer), items, settings)
    carry_out(job, [begin for begin in batches if begin not in found], keep, engine=engine)
    return _examples(items, model.get_input_embeddings(), [found[begin] for begin in batches])


@torch.no_grad()
def _examples(items: Sequence[LabelledText], embedding: Any, captured: Sequence[States]) -> AttributeExamples:
    """Return the training examples from the states of all batches.

    Raises:
        ModelError: no place in any text.
    """
    labels, parts = torch.tensor([item.label for item in items]), []
    for states in captured:
        embedded = embedding(states["tokens"].to(embedding.weight.device)).float().cpu()
        features = torch.cat([states["hidden"].float(), embedded], dim=-1)
        parts.append((features, labels[states["texts"]], states["texts"]))
    examples = AttributeExamples(*(torch.cat(part) for part in zip(*parts, strict=True)))
    if not len(examples.labels):
        raise ModelError("attribute_examples: texts must hold a text of two tokens, got none; label longer texts")
    return examples


def _states(
    loaded: tuple[Any, Any] | PerProcess[tuple[Any, Any]],
    items: Sequence[LabelledText],
    settings: CaptureSettings,
    begin: int,
) -> States:
    """Return the states of the batch that begins with a text: a unit of `attribute_examples`."""
    return Capture(*value_of(loaded), settings).states(begin, items[begin : begin + settings.batch_size])


@dataclass(frozen=True, eq=False)
class Capture:
    """Reads texts with a model, and keeps its hidden states at places of them.

    Attributes:
        model, tokenizer: the generating model.
        settings: of the capture.
    """

    model: Any
    tokenizer: Any
    settings: CaptureSettings

    @torch.no_grad()
    def states(self, begin: int, batch: Sequence[LabelledText]) -> States:
        """Return the states of a batch: hidden ``[places, width]``, tokens ``[places]`` and texts ``[places]``.

        Args:
            begin: number of its first text.
            batch: the texts.
        """
        rows = [self._tokens(item) for item in batch]
        ids, mask = right_padded([row for row, _ in rows], pad_token(self.tokenizer, self.model))
        device = self.model.device
        hidden = HiddenStates(self.model)(input_ids=ids.to(device), attention_mask=mask.to(device)).logits.float().cpu()
        drawn = [self._places(begin + own, start, len(row)) for own, (row, start) in enumerate(rows)]
        places = [(own, place) for own, each in enumerate(drawn) for place in each]
        own, place = torch.tensor(places, dtype=torch.long).reshape(-1, 2).unbind(-1)
        return {"hidden": hidden[own, place - 1], "tokens": ids[own, place], "texts": own + begin}

    def _tokens(self, item: LabelledText) -> tuple[list[int], int]:
        """Return the tokens of prompt, text and end, and the place of the first token that has a state before it."""
        before: list[int] = []
        if item.prompt:
            prompt = [{"role": "user", "content": item.prompt}] if self.settings.chat else item.prompt
            before = read_prompts(self.tokenizer, self.model, prompt).tokens(0)
        text = self.tokenizer(item.text, add_special_tokens=not before)["input_ids"]
        limit = min(self.settings.tokens, context_length(self.model) or self.settings.tokens)
        whole = [*before, *text]
        row = [*whole, *end_tokens(self.model, self.tokenizer)[:1]] if len(whole) < limit else whole[:limit]
        return row, max(1, len(before))

    def _places(self, number: int, start: int, length: int) -> list[int]:
        """Return the places of a text whose states are kept, in order; the last one is among them."""
        if length - start <= self.settings.positions:
            return [*range(start, length)]
        generator = torch.Generator().manual_seed((self.settings.seed + number * 2**32) % 2**63)
        drawn = torch.randperm(length - start - 1, generator=generator)[: self.settings.positions - 1]
        return [*(start + drawn.sort().values).tolist(), length - 1]
