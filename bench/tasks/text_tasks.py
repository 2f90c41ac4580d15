"""Tasks in which the chain generates text: mathematics, style, and free continuation."""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from logitkit.bench.tasks.passages import cut_passages, halves
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
    """Word problems (arXiv:2110.14168); an answer is right if its number is right.

    Args:
        rows: rows with ``question`` and an ``answer`` that ends in ``#### number``.
        shots: number of solved examples in the prompt, taken from the last rows; these are not samples.
        chat: write the prompt by the model's chat template.

    Examples:
        >>> task = GSM8K(rows=[{"question": "1 + 1?", "answer": "#### 2"}])
        >>> task.judge(task.samples[0], Answer(text=" It is 2."))
        {'exact_match': 1.0}
    """

    metrics = (Metric(name="exact_match", better="higher", binary=True, what="the number in the answer is right"),)

    def __init__(
        self,
        *,
        rows: Any,
        shots: Annotated[int, whole("solved examples in the prompt", ge=0)] = 0,
        chat: Annotated[bool, option("write the prompt by the model's chat template")] = False,
    ) -> None:
        if not all(isinstance(row.get("question"), str) and "####" in str(row.get("answer")) for row in rows):
            raise FileFormatError("gsm8k: every row must have a question and an answer that ends in '#### number'")
        count = len(rows) - shots
        self.shots, self.chat = rows[count:], chat
        self.samples = [Sample(id=str(number), data=dict(row)) for number, row in enumerate(rows[:count])]

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Return the solved examples and the question as the prompt."""
        shown = [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in self.shots]
        text = "\n\n".join([*shown, f"Question: {sample.data['question']}\nAnswer:"])
        if self.chat:
            return Request(prompt=[{"role": "user", "content": f"{text} End with '#### ' and the number."}])
        return Request(prompt=text, stops=("\nQuestion:", "\n\n\n"))

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Return whether the number of the answer equals that of the solution; see `number_in`."""
        wanted = number_in(sample.data["answer"])
        return {"exact_match": float(wanted is not None and number_in(answer.text) == wanted)}


def number_in(text: str) -> Decimal | None:
    """Return the first number after ``####``, or else the last number of the text; None without a number.

    Examples:
        >>> number_in("so #### 1,234 and 5"), number_in("3 or $4.50.")
        (Decimal('1234'), Decimal('4.5'))
    """
    _, marked, after = text.partition("####")
    numbers = _NUMBER.findall(after if marked else text)
    if not numbers:
        return None
    try:
        return Decimal(re.sub(r"[$,]", "", numbers[0] if marked else numbers[-1])).normalize()
    except InvalidOperation:
        return None


TEXT_METRICS = (
    Metric(name="perplexity", better=None, exponent=True, what="perplexity under the model itself, without the chain"),
    Metric(name="distinct_1", better=None, what="share of different tokens"),
    Metric(name="distinct_2", better=None, what="share of different bigrams"),
    Metric(name="distinct_3", better="higher", what="share of different trigrams"),
)


def _text_metrics(answer: Answer, text: Continuation) -> dict[str, float | None]:
    """Return the metrics that every continuation has."""
    shares: dict[str, float | None] = {f"distinct_{order}": distinct(text, order) for order in (1, 2, 3)}
    return {"perplexity": base_log_perplexity(answer.model, [text])[0], **shares}


def _continuation(answer: Answer) -> Continuation:
    """Return the continuation without its end token, extended to two tokens, so that it has a bigram."""
    ends = {*end_tokens(answer.model, answer.tokenizer), answer.tokenizer.pad_token_id}
    ids = [token for token in answer.ids if token not in ends]
    ids += list(answer.ids[len(ids) :])[: max(0, 2 - len(ids))]
    ids += [answer.tokenizer.eos_token_id] * max(0, 2 - len(ids))
    return Continuation(prompt=list(answer.prompt_ids), continuation=ids, js_bits=[])


class StyleTransfer(Task):
    """Continue prompts of four kinds, and measure the style of a corpus in the continuations.

    Style is measured with the second half of the corpus. The first half is for the table that steers (a resource with
    ``half: first``), so that copying the steering text does not raise the metrics. arXiv:2601.16224, section 2.3.

    Args:
        rows: rows with ``text``, together the corpus.
        each: number of prompts of each of the four kinds.
        orders: length of the longest n-gram that is measured.

    Examples:
        >>> task = StyleTransfer(rows=[{"text": "In a village of La Mancha"}, {"text": "there lived a knight"}], each=1)
        >>> len(task.samples)
        4
    """

    metrics = (
        Metric(name="style_perplexity", better="lower", exponent=True, what="by the half that did not steer"),
        Metric(name="bigrams_seen", better="higher", what="share of bigrams that occur in that half"),
        *TEXT_METRICS,
    )

    def __init__(
        self,
        *,
        rows: Any,
        each: Annotated[int, whole("prompts of each of the four kinds", ge=1, le=10)] = 10,
        orders: Annotated[int, whole("length of the longest n-gram that is measured", ge=1, le=5)] = 3,
    ) -> None:
        self.orders, self._meters = orders, dict[str, StyleMeter]()
        self._corpus = halves("\n\n".join(str(row["text"]) for row in rows))[1]
        kinds = [prompts[:each] for prompts in PROMPTS.values()]
        mixed = [prompt for prompts in zip(*kinds, strict=True) for prompt in prompts]
        # The corpus is part of a sample, since another corpus gives other values of the same metric.
        corpus = hashlib.sha256(self._corpus.encode()).hexdigest()[:16]
        self.samples = [
            Sample(id=str(number), data={"prompt": text, "corpus": corpus}) for number, text in enumerate(mixed)
        ]

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Return a prompt."""
        return Request(prompt=sample.data["prompt"])

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Return the style by the other half of the corpus, and the metrics of the text."""
        text = _continuation(answer)
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
    """Continue the beginnings of passages; measures repetition, and perplexity under the model itself.

    Args:
        rows: rows with a text.
        words: number of words in a prompt.
        field: field of a row that holds its text.

    Examples:
        >>> task = FreeText(rows=[{"text": "one two three"}], words=2)
        >>> task.request(task.samples[0], None).prompt
        'one two'
    """

    metrics = (TEXT_METRICS[-1], *TEXT_METRICS[:-1])

    def __init__(
        self,
        *,
        rows: Any,
        words: Annotated[int, whole("words in a prompt", ge=1)] = 40,
        field: Annotated[str, option("field of a row that holds its text")] = "text",
    ) -> None:
        self.samples = cut_passages(rows, field=field, words=words, after=1)

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Return the beginning of a passage as the prompt."""
        return Request(prompt=sample.data["before"])

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Return the shares of distinct n-grams, and the perplexity under the model."""
        return _text_metrics(answer, _continuation(answer))
