"""ARPA files: probabilities, backoff weights, and damaged files."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest
import torch

from logitkit.errors import FileFormatError
from logitkit.processors.ngram import NgramStyle, NgramTable
from logitkit.registry.laws import tiny_tokenizer

ARPA = """
\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-1.0\t<unk>
-0.3010299957\ta\t-0.2
-0.6020599913\tb\t-0.1
-0.6\t</s>

\\2-grams:
-0.1\ta b
-0.5\tb </s>

\\end\\
"""


def test_arpa_by_hand(tmp_path: Path) -> None:
    """P(b | a) is in the file, P(a | b) backs off with the weight of b, and c has the probability of ``<unk>``."""
    path = tmp_path / "m.arpa.gz"
    path.write_bytes(gzip.compress(ARPA.encode()))
    table = NgramTable.from_arpa(path, tiny_tokenizer())
    a, b, c = (tiny_tokenizer().get_vocab()[letter] for letter in "abc")
    table.save(tmp_path / "t.safetensors")
    for read in (table, NgramTable.load(tmp_path / "t.safetensors")):
        got = read.probability(torch.tensor([[a], [b], [a], [c]]), torch.tensor([b, a, c, a])).log10()
        want = torch.tensor([-0.1, -0.1 - 0.30103, -0.2 - 1.0, -0.30103], dtype=torch.float64)
        torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def test_arpa_carries_any_smoothed_table(tmp_path: Path) -> None:
    """A smoothed table written as ARPA and read again gives the same probabilities."""
    tokenizer = tiny_tokenizer()
    table = NgramTable.train(["abracadabra", "cabbada", "dab"], tokenizer, smoothing="witten-bell")
    words = {number: token for token, number in tokenizer.get_vocab().items()}
    lines = ["\\data\\", *(f"ngram {m}={len(level)}" for m, level in enumerate(table.levels, 1))]
    for m in range(1, 4):
        lines.append(f"\\{m}-grams:")
        weights = table.backoff.weight[m].tolist() if m < 3 else [1.0] * len(table.levels[2])
        probabilities = table.backoff.probability[m - 1].tolist()
        for gram, p, weight in zip(table.ngrams(m).tolist(), probabilities, weights, strict=True):
            lines.append(f"{math.log10(p)!r}\t{' '.join(words[t] for t in gram)}\t{math.log10(weight)!r}")
    (tmp_path / "m.arpa").write_text("\n".join([*lines, "\\end\\", ""]), encoding="utf-8")
    again = NgramTable.from_arpa(tmp_path / "m.arpa", tokenizer)
    letters = torch.tensor(sorted(set(table.ngrams(1)[:, 0].tolist())))
    rows = torch.cartesian_prod(letters, letters, letters)
    torch.testing.assert_close(
        again.probability(rows[:, :2], rows[:, 2]), table.probability(rows[:, :2], rows[:, 2]), rtol=1e-10, atol=0
    )
    lift = NgramStyle(table=again, weight=1.0)(rows[:, :2], torch.zeros(len(rows), table.size))
    assert torch.isfinite(lift).all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nothing of the kind", "must contain the n-grams that it announces"),
        (ARPA.replace("\\end\\", ""), "and .end., got"),
        (ARPA[: ARPA.index("-0.5")], "must contain the n-grams that it announces"),
        (
            ARPA.replace("-0.5\tb </s>", "-0.5\tb"),
            "got line 14: .*expected a probability, 2 words and",
        ),
        (ARPA.replace("-0.5", "minus"), "got line 14"),
        (ARPA.replace("-0.5", "nan"), "got line 14: .*probability of at most 0, not nan"),
        (ARPA.replace("-0.5", "-inf"), "got line 14: .*probability of at most 0, not -inf"),
        (ARPA.replace("-0.5", "inf"), "got line 14: .*probability of at most 0, not inf"),
        (ARPA.replace("-0.5", "0.5"), "got line 14: .*probability of at most 0, not 0.5"),
        (ARPA.replace("\t-0.2", "\tnan"), "got line 8: .*weight of at most 300.0, not nan"),
        (ARPA.replace("\t-0.2", "\t-inf"), "got line 8: .*weight of at most 300.0, not -inf"),
        (ARPA.replace("\t-0.2", "\t400"), "got line 8: .*weight of at most 300.0, not 400"),
        (ARPA.replace("\\2-grams:", "\\3-grams:"), "order 2 must come next"),
    ],
)
def test_bad_arpa_files_say_where(text: str, says: str, tmp_path: Path) -> None:
    """Another format, a truncated file and a damaged line are refused with their line."""
    (tmp_path / "m.arpa").write_text(text)
    with pytest.raises(FileFormatError, match=says):
        NgramTable.from_arpa(tmp_path / "m.arpa", tiny_tokenizer())


def test_an_absent_arpa_file_is_refused(tmp_path: Path) -> None:
    """A missing file is refused by its path."""
    with pytest.raises(FileFormatError, match="must be a file"):
        NgramTable.from_arpa(tmp_path / "m.arpa", tiny_tokenizer())
