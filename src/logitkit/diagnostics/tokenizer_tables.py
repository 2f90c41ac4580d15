"""The tables of a report of tokenizers, as text, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from logitkit.diagnostics.tokenizer_pair import TokenizerPair
from logitkit.diagnostics.tokenizer_report import ALL, TextMeasures, TokenizerReport

LONG = 1000  # tokens of a text from which on its own entropies are shown
EXCERPT = 40  # characters of a lost line


class ReportTable(NamedTuple):
    """A table of the report.

    Attributes:
        title: what it shows.
        note: how to read it.
        headings: headings of the columns.
        rows: the cells; a column without any text is not shown.
        texts: headings of columns that hold text; the others hold numbers.
        bars: for each row the length of a bar behind it, 0 to 1; None without bars.

    Example:
        >>> ReportTable("Length", "", ("text", "tokens"), [("a", "1")], ("text",), None).title
        'Length'
    """

    title: str
    note: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    texts: tuple[str, ...]
    bars: Sequence[float] | None

    def shown(self) -> list[int]:
        """Return the numbers of the columns that hold a text."""
        return [number for number in range(len(self.headings)) if any(row[number] for row in self.rows)]


def report_tables(report: TokenizerReport) -> list[ReportTable]:
    """Return the tables of a report, without those that have nothing to show.

    Example:
        >>> from logitkit.diagnostics import tokenizer_report
        >>> from logitkit.registry.laws import tiny_tokenizer
        >>> tables = report_tables(tokenizer_report({"tiny": tiny_tokenizer()}, {"note": "a cat"}))
        >>> [table.title for table in tables]
        ['The tokenizers', 'Length', 'Entropies', 'Coverage']
    """
    tables = [_tokenizers(report), _length(report), _entropies(report), _coverage(report), _losses(report)]
    if report.pair is not None:
        names = list(report.tokenizers)
        tables += [_alignments(names, report.pair), _boundaries(names, report.pair)]
    return [table for table in tables if table.rows]


def _each(report: TokenizerReport) -> Iterator[tuple[str, str, TextMeasures]]:
    """Yield text, tokenizer and measures, the tokenizers of a text one after the other; one tokenizer has no name."""
    names = list(report.tokenizers)
    for text in report.tokenizers[names[0]].texts:
        for name in names:
            yield text, name if len(names) > 1 else "", report.tokenizers[name].texts[text]


def _tokenizers(report: TokenizerReport) -> ReportTable:
    """Return what the tokenizers are."""
    rows = [
        (name, str(one.vocabulary), str(one.special), one.loss or "; ".join(one.loses) or "nothing")
        for name, one in report.tokenizers.items()
    ]
    headings = ("tokenizer", "tokens for text", "special tokens", "what it loses of a text")
    return ReportTable("The tokenizers", "", headings, rows, (headings[0], headings[3]), None)


def _length(report: TokenizerReport) -> ReportTable:
    """Return the length of each text in tokens, and the premiums."""
    found = list(_each(report))
    rows = [
        (
            *(text, name, f"{one.bytes_per_token:.2f}", "" if one.premium is None else f"{one.premium:.2f}"),
            *(str(one.bytes), str(one.tokens)),
        )
        for text, name, one in found
    ]
    headings = ("text", "tokenizer", "bytes a token", "premium", "bytes", "tokens")
    note, bars = "", None
    if report.reference is not None:
        note = (
            f"Premium: tokens for each token of the same sentences in {report.reference}. "
            "The premium of a few sentences is rough."
        )
        premiums = [one.premium or 0.0 for _, _, one in found]
        bars = [premium / max(premiums) for premium in premiums]
    return ReportTable("Length", note, headings, rows, ("text", "tokenizer"), bars)


def _entropies(report: TokenizerReport) -> ReportTable:
    """Return the entropies of long texts, and of all texts together."""
    found = list(_each(report))
    last = found[-1][0]
    rows = [
        (
            *(text, name),
            *(f"{bits:.2f}" for bits in (one.entropies.unigram, one.entropies.given_one, one.entropies.given_two)),
            *(f"{share:.1%}" for share in (one.entropies.efficiency, one.entropies.renyi_efficiency)),
            *(str(one.entropies.tokens), str(one.entropies.distinct)),
        )
        for text, name, one in found
        if one.entropies is not None and (text == last or one.entropies.tokens >= LONG)
    ]
    headings = (
        "text",
        "tokenizer",
        "one token",
        "given one",
        "given two",
        "efficiency",
        "Renyi",
        "tokens",
        "different",
    )
    note = (
        "Bits a token, from the frequencies in the text: of one token, and given the one or two tokens before it. "
        "On short texts they are too low: n tokens cannot have more than log2 n bits, and the conditional entropies "
        "fall to 0. Efficiency: of one token, as a share of the largest possible over the vocabulary; Renyi: the same "
        "at order 2.5."
    )
    return ReportTable("Entropies", note, headings, rows, ("text", "tokenizer"), None)


def _coverage(report: TokenizerReport) -> ReportTable:
    """Return how characters are written, by script, over all texts."""
    rows = []
    wholes = {name: list(one.texts.values())[-1].coverage for name, one in report.tokenizers.items()}
    for script in next(iter(wholes.values())):
        for name, whole in wholes.items():
            count, in_bytes, unknown = whole[script]
            shares = (f"{number / count:.1%}" if number else "0" for number in (in_bytes, unknown))
            rows.append((script, name if len(wholes) > 1 else "", str(count), *shares))
    headings = ("script", "tokenizer", "characters", "in bytes", "unknown")
    note = (
        "In bytes: characters that take more than one token, or a byte token. "
        "Unknown: characters that become the unknown token."
    )
    return ReportTable("Coverage", note, headings, rows, ("script", "tokenizer"), None)


def _losses(report: TokenizerReport) -> ReportTable:
    """Return the lines that come back changed."""
    rows = [
        (text, name, str(one.lines), str(one.lost), *(_excerpt(line) for line in one.example))
        for text, name, one in _each(report)
        if one.lost and text != ALL
    ]
    headings = ("text", "tokenizer", "lines", "changed", "the first of them", "decoded")
    note = "Lines that are not the same after encoding and decoding."
    return ReportTable("Losses", note, headings, rows, ("text", "tokenizer", *headings[-2:]), None)


def _excerpt(line: str) -> str:
    """Return the beginning of a line as Python writes it, so that white space is seen."""
    return repr(line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…")


def _alignments(names: Sequence[str], pair: TokenizerPair) -> ReportTable:
    """Return how much of each vocabulary the alignments cover."""
    rows = []
    for own, other, alignments in ((names[0], names[1], pair.alignments[0]), (names[1], names[0], pair.alignments[1])):
        for one in alignments:
            count = max(1, one.exact + one.partial + one.none)
            shares = (f"{number / count:.1%}" for number in (one.exact, one.partial, one.none))
            rows.append((own, other, one.method, *shares, f"{one.exact_in_texts:.1%}"))
    headings = ("tokens of", "aligned to", "method", "same bytes", "other bytes", "nothing", "same bytes, in the texts")
    note = "Shares of the vocabulary; the last column counts the tokens of the texts." + (
        " The two tokenizers are the same." if pair.same else ""
    )
    return ReportTable("Alignment", note, headings, rows, headings[:3], None)


def _boundaries(names: Sequence[str], pair: TokenizerPair) -> ReportTable:
    """Return the boundaries of each tokenizer that fall inside tokens of the other."""
    rows: list[tuple[str, ...]] = []
    for text, both in pair.crossings.items():
        if both is None:
            rows.append((text, "", "one of them does not keep the bytes", "", ""))
            continue
        for own, other, one in ((names[0], names[1], both[0]), (names[1], names[0], both[1])):
            rows.append((text, own, other, str(one.boundaries), f"{one.share:.1%}"))
    headings = ("text", "boundaries of", "inside tokens of", "boundaries", "crossing")
    return ReportTable("Crossing boundaries", "", headings, rows, headings[:3], None)
