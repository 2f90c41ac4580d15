"""The task of replacing bracketed words, which counts phantom edits: the same text in other tokens."""

from __future__ import annotations

import hashlib
import itertools
import keyword
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any

import regex

from logitkit.bench.tasks.edit_outcomes import KINDS, OUTCOMES, Fate, Marks, TokenizedText, align, fate
from logitkit.bench.tasks.passages import cut_passages
from logitkit.bench.tasks.task import Answer, Metric, Request, Sample, Task
from logitkit.errors import FileFormatError, ModelError
from logitkit.files import cache_folder
from logitkit.params import option, whole
from logitkit.processors.canonical import non_canonical_tokens
from logitkit.processors.canonical.rules import RuleSource
from logitkit.processors.tokens.reencoding import Reencoding
from logitkit.processors.tokens.vocabulary import Vocabulary

MARKS: tuple[Marks, ...] = (("[", "]"), ("[[", "]]"))  # the first pair that a passage does not contain is used
WORD = regex.compile(r"(?<![\w'’-])\p{L}{4,}(?![\w'’-])")  # a whole word of four letters or more
_FUNCTION_WORDS = (
    "about above after again against almost along already also although always among another around because been "
    "before being below between both cannot could does doing done down during each either enough even ever every from "
    "further have having hence here hers herself himself into itself just least less many might mine more most much "
    "must myself neither never next none nothing often once only onto other others ours ourselves over perhaps quite "
    "rather same shall should since some still such than that their theirs them themselves then there therefore these "
    "they this those though through thus together toward towards under until unto upon very well were what when where "
    "whether which while whom whose will with within without would your yours yourself yourselves"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
STOPS = ("\nPassage:", "\nRewritten:")
INSTRUCTION = (
    "Rewrite each passage. Replace every word in brackets by another word that fits, leave out the brackets, and "
    "change nothing else.\n\n"
    "Passage: The {0}old{1} man walked slowly to the {0}market{1} and bought some bread.\n"
    "Rewritten: The elderly man walked slowly to the shop and bought some bread.\n\n"
    "Passage: {2}\n"
    "Rewritten:"
)


class PhantomEdits(Task):
    """Replace the bracketed words of passages; measures how many are left alone, replaced, or only cut anew.

    "Say Anything but This", arXiv:2601.14658. An answer that repeats a word in other tokens changes nothing that a
    reader sees: a phantom edit. `logitkit.bench.tasks.edit_outcomes` says how words and tokens are compared.

    Departures: passages of books or code in place of news, shorter, with a solved example in the prompt, so that small
    models take part. Every metric but ``non_canonical`` is a share of the bracketed words of a passage.

    Args:
        rows: rows with a text.
        words: number of words of a passage; with ``whole_rows``, the largest number.
        targets: number of bracketed words of a passage. They are drawn from the words of four letters or more that are
            no function words; the text of the passage is the seed.
        field: field of a row that holds its text.
        whole_rows: each row is one passage with its line breaks, for code. Rows that are too long are left out.
        chat: write the prompt by the model's chat template.

    Raises:
        FileFormatError: no passage has enough words to replace.

    Examples:
        >>> task = PhantomEdits(rows=[{"text": "We saw seven yellow birds near the river today."}], words=9, targets=2)
        >>> task.request(task.samples[0], None).prompt.splitlines()[-2]
        'Passage: We saw seven yellow birds near the [river] [today].'
    """

    metrics = (
        Metric(name="phantom_edit", better="lower", what="the same text in other tokens"),
        Metric(name="same_bytes", better="lower", what="phantom edits that keep white space too"),
        Metric(name="unchanged", better=None, what="the same text in the same tokens"),
        Metric(name="replaced", better="higher", what="another text"),
        Metric(name="missing", better="lower", what="neither the word nor a replacement"),
        Metric(
            name="non_canonical",
            better="lower",
            binary=True,
            what="the tokenizer would not write some token of the answer",
        ),
        *(Metric(name=name, better=None, what=what) for name, what in KINDS.items()),
    )

    # Over 40 lines: the parameters are documented in the class.
    def __init__(
        self,
        *,
        rows: Any,
        words: Annotated[int, whole("words of a passage", ge=2)] = 60,
        targets: Annotated[int, whole("bracketed words of a passage", ge=1)] = 3,
        field: Annotated[str, option("field of a row that holds its text")] = "text",
        whole_rows: Annotated[bool, option("each row is one passage with its line breaks, for code")] = False,
        chat: Annotated[bool, option("write the prompt by the model's chat template")] = False,
    ) -> None:
        self.chat = chat
        texts = _texts(rows, field, words, whole_rows=whole_rows)
        drawn = [_sample_data(unicodedata.normalize("NFC", text), targets) for text in texts]
        usable = [data for data in drawn if data is not None]
        self.samples = [Sample(id=str(number), data=data) for number, data in enumerate(usable)]
        if not self.samples:
            raise FileFormatError(
                f"phantom_edits: the data must hold a passage with {targets} words to replace, got none; lower "
                "targets, or change words or field"
            )

    def request(self, sample: Sample, tokenizer: Any) -> Request:
        """Return the instruction, a solved example and the passage as the prompt."""
        marks = sample.data["marks"]
        text = INSTRUCTION.format(*marks, written(sample.data["passage"], sample.data["targets"], marks))
        stops = STOPS if "\n\n" in sample.data["passage"] else ("\n\n", *STOPS)
        return Request(prompt=[{"role": "user", "content": text}] if self.chat else text, stops=stops)

    def judge(self, sample: Sample, answer: Answer) -> dict[str, float | None]:
        """Return the shares of the outcomes and classes, and whether the answer leaves the tokenizer's encoding."""
        rules = _rules_of(answer)
        ids = ids_before_stop(rules.vocabulary, answer.ids, self.request(sample, answer.tokenizer).stops)
        fates = fates_of(sample, answer.tokenizer, rules.vocabulary, ids)
        shares: dict[str, list[bool]] = {"same_bytes": [each.same_bytes for each in fates]}
        shares |= {str(name): [each.outcome == name for each in fates] for name in OUTCOMES}
        shares |= {name: [each.kind == name for each in fates] for name in KINDS}
        result: dict[str, float | None] = {name: sum(each) / len(fates) for name, each in shares.items()}
        return {**result, "non_canonical": float(any(non_canonical_tokens(rules, answer.prompt_ids, ids)))}


def fates_of(sample: Sample, tokenizer: Any, vocabulary: Vocabulary, ids: Sequence[int]) -> list[Fate]:
    """Return what became of each bracketed word of a sample in an answer.

    Args:
        sample: a sample of `PhantomEdits`.
        tokenizer: the tokenizer of the model.
        vocabulary: its vocabulary.
        ids: token ids of the answer.

    Examples:
        >>> from logitkit.registry.laws import foreign_tokenizer
        >>> task = PhantomEdits(rows=[{"text": "one old harbour there"}], words=4, targets=1)
        >>> vocabulary = Vocabulary.of(foreign_tokenizer())
        >>> for text in ("one old harbour there", "one old port there", "one"):
        ...     ids = foreign_tokenizer()(text, add_special_tokens=False)["input_ids"]
        ...     fates_of(task.samples[0], foreign_tokenizer(), vocabulary, ids)[0].outcome
        'unchanged'
        'replaced'
        'missing'
    """
    passage, targets, marks = (sample.data[name] for name in ("passage", "targets", "marks"))
    bracketed = written(passage, targets, marks)
    plain, in_marks = (
        TokenizedText.of(vocabulary, tokenizer(text, add_special_tokens=False)["input_ids"])
        for text in (passage, bracketed)
    )
    answer = TokenizedText.of(vocabulary, ids)
    fates = []
    for number, ((start, end), place) in enumerate(
        zip(targets, align(passage, targets, answer.text, marks), strict=True)
    ):
        if place.found != "equal":
            fates.append(Fate(outcome="replaced" if place.found == "other" else "missing"))
            continue
        # The tokenizer's own space before a text counts in ``text``.
        shift = len(in_marks.text) - len(bracketed) + number * len("".join(marks)) + len(marks[0])
        reference, moved = (in_marks, shift) if place.in_marks else (plain, len(plain.text) - len(passage))
        begins = passage[:start].rstrip()[-1:] in ("", *'.!?:"“”')
        word, found = (start + moved, end + moved), (place.start, place.end)
        fates.append(fate(reference, word, answer, found, begins=begins))
    return fates


def written(passage: str, targets: Sequence[Sequence[int]], marks: Marks) -> str:
    """Return a passage with brackets around words.

    Args:
        passage: the passage.
        targets: start and end of each word, in ascending order.
        marks: the brackets.

    Examples:
        >>> written("an old man", [(3, 6)], ("[", "]"))
        'an [old] man'
    """
    for start, end in reversed(targets):
        passage = f"{passage[:start]}{marks[0]}{passage[start:end]}{marks[1]}{passage[end:]}"
    return passage


def ids_before_stop(vocabulary: Vocabulary, ids: Sequence[int], stops: Sequence[str]) -> list[int]:
    r"""Return the tokens of an answer that end before the first stop text.

    Args:
        vocabulary: the vocabulary of the model.
        ids: token ids of the answer.
        stops: the stop texts.

    Examples:
        >>> from logitkit.registry.laws import tiny_tokenizer
        >>> ids = tiny_tokenizer()("on\n\none")["input_ids"]
        >>> tiny_tokenizer().decode(ids_before_stop(Vocabulary.of(tiny_tokenizer()), ids, ["\n\n"]))
        'on'
    """
    lengths = [len(vocabulary.token_bytes[number] or b"") if number < len(vocabulary) else 0 for number in ids]
    joined = vocabulary.join(number for number in ids if number < len(vocabulary))
    end = min((place for stop in stops if (place := joined.find(stop.encode())) >= 0), default=len(joined))
    return [number for number, until in zip(ids, itertools.accumulate(lengths), strict=True) if until <= end]


def _rules_of(answer: Answer) -> Reencoding:
    """Return the rules of the tokenizer of an answer.

    Raises:
        ModelError: the tokenizer is a slow one, or changes texts.
    """
    rules = RuleSource.of_model(answer.model, answer.tokenizer, cache_folder()).rules()
    loss = rules.vocabulary.loss_reason
    if loss:
        raise ModelError(
            f"phantom_edits: tokenizer must keep every byte of a text, but {loss}; choose another model or task"
        )
    return rules


def _texts(rows: Any, field: str, words: int, *, whole_rows: bool) -> list[str]:
    """Return the passages of the data, before words are chosen."""
    if not whole_rows:
        return [str(sample.data["before"]) for sample in cut_passages(rows, field=field, words=words, after=0)]
    absent = next((number for number, row in enumerate(rows) if not isinstance(row.get(field), str)), None)
    if absent is not None:
        raise FileFormatError(f"phantom_edits: row {absent} must hold text in {field!r}, got {sorted(rows[absent])}")
    texts = [row[field].replace("\r\n", "\n").strip() for row in rows]
    return [text for text in texts if len(text.split()) <= words]


def _sample_data(text: str, targets: int) -> dict[str, Any] | None:
    """Return a passage, the words to replace and their brackets; None: it has too few words, or all brackets."""
    words = [match.span() for match in WORD.finditer(text) if not _is_function_word(match.group())]
    words = [span for span in words if text[: span[0]].strip() and text[span[1] :].strip()]  # not the first or the last
    marks = next((pair for pair in MARKS if not any(mark in text for mark in pair)), None)
    if len(words) < targets or marks is None:
        return None
    drawn = sorted(words, key=lambda span: hashlib.sha256(f"{span[0]} {text}".encode()).digest())[:targets]
    return {"passage": text, "targets": sorted(map(list, drawn)), "marks": list(marks)}


def _is_function_word(word: str) -> bool:
    """Return whether a word is a function word of English, or a keyword of Python."""
    return word.lower() in FUNCTION_WORDS or keyword.iskeyword(word)
