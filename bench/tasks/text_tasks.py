"""Tasks in which the chain writes text: mathematics, style, and free continuation."""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from logitkit.bench.tasks.passages import halves, passages
from logitkit.bench.tasks.style_metrics import Continuation, StyleMeter, base_log_perplexity, distinct
from logitkit.bench.tasks.style_prompts import PROMPTS
from logitkit.bench.tasks.task import Answer, Metric, Request, Sample, Task
from logitkit.errors import FileFormatError
from logitkit.params import option, whole
from logitkit.processors.model_facts import end_tokens
from logitkit.processors.ngram.table import NgramTable
from logitkit.processors.tokens.vocabulary import fingerprint

_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")


class GSM8K(Task):
    """Word problems. Solved examples for the prompt are the last rows of the data, which are then not asked."""

    metrics = (Metric(name="exact_match", better="higher", binary=True, what="the answer is the right number"),)

    def __init__(
        self,
        *,
        rows: Any,
        shots: Annotated[int, whole("solved examples in the prompt", ge=0)] = 0,
        chat: Annotated[bool, option("ask by the model's chat template")] = False,
    ) -> None:
        if not all(isinstance(row.get("question"), str) and "####" in str(row.get("answer")) for row in rows):
            raise FileFormatError("gsm8k: every row must have a question and an answer that ends in '#### number'")
        asked = rows[: len(rows) - shots]
        self.shots, self.chat = rows[len(asked) :], chat
        self.samples = [Sample(id=str(number), data=dict(row)) for number, row in enumerate(asked)]

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Examples, the question, and where it ends."""
        shown = [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in self.shots]
        text = "\n\n".join([*shown, f"Question: {sample.data['question']}\nAnswer:"])
        if self.chat:
            return Request(prompt=[{"role": "user", "content": f"{text} End with '#### ' and the number."}])
        return Request(prompt=text, stops=("\nQuestion:", "\n\n\n"))

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """The number behind ####, else the last number."""
        wanted = number_in(sample.data["answer"])
        return {"exact_match": float(wanted is not None and number_in(answer.text) == wanted)}


def number_in(text: str) -> Decimal | None:
    """The first number behind ``####``, else the last number of a text; None where there is none."""
    _, marked, behind = text.partition("####")
    found = _NUMBER.findall(behind if marked else text)
    if not found:
        return None
    try:
        return Decimal(re.sub(r"[$,]", "", found[0] if marked else found[-1])).normalize()
    except InvalidOperation:
        return None


TEXT_METRICS = (
    Metric(name="perplexity", better=None, exponent=True, what="under the model itself, without the chain"),
    Metric(name="distinct_1", better=None, what="share of different tokens"),
    Metric(name="distinct_2", better=None, what="share of different bigrams"),
    Metric(name="distinct_3", better="higher", what="share of different trigrams"),
)


def _text_metrics(answer: Answer, text: Continuation) -> dict[str, float | None]:
    """Metrics that any continuation has."""
    found: dict[str, float | None] = {f"distinct_{order}": distinct(text, order) for order in (1, 2, 3)}
    return {"perplexity": base_log_perplexity(answer.model, [text])[0], **found}


def _text(answer: Answer) -> Continuation:
    """The continuation without its end token; at least two tokens, so that it has a bigram."""
    ends = {*end_tokens(answer.model, answer.tokenizer), answer.tokenizer.pad_token_id}
    ids = [token for token in answer.ids if token not in ends]
    ids += list(answer.ids[len(ids) :])[: max(0, 2 - len(ids))]
    ids += [answer.tokenizer.eos_token_id] * max(0, 2 - len(ids))
    return Continuation(prompt=list(answer.prompt_ids), continuation=ids, js_bits=[])


class StyleTransfer(Task):
    """Continue prompts of four kinds; how much of a corpus's style the text has, by its second half.

    The first half is for the table that steers (a resource with ``half: first``), so that copying does not pay.
    """

    metrics = (
        Metric(name="style_perplexity", better="lower", exponent=True, what="by the half that did not steer"),
        Metric(name="bigrams_seen", better="higher", what="share of bigrams that the other half holds"),
        *TEXT_METRICS,
    )

    def __init__(
        self,
        *,
        rows: Any,
        each: Annotated[int, whole("prompts of each of the four kinds", ge=1, le=10)] = 10,
        orders: Annotated[int, whole("longest n-gram that is measured", ge=1, le=5)] = 3,
    ) -> None:
        self.orders, self._meters = orders, dict[str, StyleMeter]()
        self._corpus = halves("\n\n".join(str(row["text"]) for row in rows))[1]
        kinds = [prompts[:each] for prompts in PROMPTS.values()]
        mixed = [prompt for prompts in zip(*kinds, strict=True) for prompt in prompts]
        told = hashlib.sha256(self._corpus.encode()).hexdigest()[:16]  # another corpus is another measure
        self.samples = [
            Sample(id=str(number), data={"prompt": text, "corpus": told}) for number, text in enumerate(mixed)
        ]

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """A prompt."""
        return Request(prompt=sample.data["prompt"])

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Style by the other half, and what it cost the text."""
        text = _text(answer)
        key = fingerprint(answer.tokenizer)
        if key not in self._meters:
            table = NgramTable.train([self._corpus], answer.tokenizer, orders=self.orders)
            self._meters[key] = StyleMeter(table)
        meter = self._meters[key]
        style: dict[str, float | None] = {
            "style_perplexity": meter.log_perplexity(text),
            "bigrams_seen": meter.bigram_seen(text),
        }
        return style | _text_metrics(answer, text)


class FreeText(Task):
    """Continue the beginnings of passages."""

    metrics = (TEXT_METRICS[-1], *TEXT_METRICS[:-1])

    def __init__(
        self,
        *,
        rows: Any,
        words: Annotated[int, whole("words of a beginning", ge=1)] = 40,
        field: Annotated[str, option("where a row holds its text")] = "text",
    ) -> None:
        self.samples = passages(rows, field=field, words=words, after=1)

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """A beginning."""
        return Request(prompt=sample.data["before"])

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Repetition, and perplexity under the model."""
        return _text_metrics(answer, _text(answer))
