"""N-gram tables: files, refused values and refused tokenizers."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import logitkit
from logitkit.errors import FileFormatError, ModelError, ParameterError
from logitkit.processors.ngram import NgramTable, Smoothing, TableVocabulary
from logitkit.processors.ngram.counting import Level
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from reference.ngrams import counts_of

DOCUMENTS = [[1, 2, 1, 2, 3], [2, 1]]


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    """A saved and loaded table has the same arrays, special ids, smoothing, fingerprint and sources."""
    table = NgramTable.train(["the other text", "a text of its own"], tiny_tokenizer(), smoothing="witten-bell")
    table.save(tmp_path / "t.safetensors")
    again = NgramTable.load(tmp_path / "t.safetensors")
    assert counts_of(again) == counts_of(table)
    assert again.fingerprint == table.fingerprint and again.sources == table.sources
    assert again.special.tolist() == table.special.tolist() == TableVocabulary.of(tiny_tokenizer()).special
    assert repr(again) == repr(table) and again.smoothing.as_data() == table.smoothing.as_data()
    rows, tokens = torch.randint(0, 256, (50, 2)), torch.randint(0, 256, (50,))
    torch.testing.assert_close(again.probability(rows, tokens), table.probability(rows, tokens))
    assert [path.name for path in tmp_path.iterdir()] == ["t.safetensors"]


def test_a_bad_file_is_refused(tmp_path: Path) -> None:
    """A missing, truncated or foreign file, another version, and mismatched arrays raise an error each."""
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    NgramTable.count(DOCUMENTS, size=5).save(good)
    with pytest.raises(FileFormatError, match="must be a file"):
        NgramTable.load(bad)
    for content in (good.read_bytes()[:-40], good.read_bytes()[:30], b"", b"\x80\x04cos\nsystem\n."):
        bad.write_bytes(content)
        with pytest.raises(FileFormatError, match="must be a whole safetensors file"):
            NgramTable.load(bad)
    save_file({"x": torch.zeros(2)}, str(bad))
    with pytest.raises(FileFormatError, match="got another safetensors file"):
        NgramTable.load(bad)
    about: dict[str, Any] = {"version": 2}
    save_file({"x": torch.zeros(2)}, str(bad), metadata={"format": "logitkit n-gram table", "about": json.dumps(about)})
    with pytest.raises(FileFormatError, match="must be of version 1, got 2"):
        NgramTable.load(bad)
    about = {"version": 1, "orders": 1, "counted": True}
    arrays = {"keys.1": torch.arange(3), "counts.1": torch.ones(2), "starts.1": torch.tensor([0, 3])}
    save_file(arrays, str(bad), metadata={"format": "logitkit n-gram table", "about": json.dumps(about)})
    with pytest.raises(FileFormatError, match="do not fit"):
        NgramTable.load(bad)


def _rewritten(path: Path, change: Any, *, checksum: bool = False) -> None:
    """Write the file again after a change of its arrays and metadata, without a checksum or with the old one."""
    with safe_open(str(path), framework="pt") as file:
        arrays = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        header = dict(file.metadata())
    about = json.loads(header["about"])
    change(arrays, about)
    if not checksum:
        del header["sha256"]
    save_file(arrays, str(path), metadata={**header, "about": json.dumps(about)})


def _set(name: str, index: int, value: float) -> Any:
    """Return a change of one element of an array."""
    return lambda arrays, about: arrays[name].__setitem__(index, value)


def _is(name: str, value: Any) -> Any:
    """Return a change of one entry of the metadata."""
    return lambda arrays, about: about.__setitem__(name, value)


def _typed(name: str, dtype: torch.dtype) -> Any:
    """Return a change of the type of an array."""
    return lambda arrays, about: arrays.__setitem__(name, arrays[name].to(dtype))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("keys.1", 0, 2), "keys of order 1 that are not sorted"),
        (_set("keys.2", 1, 2), "keys of order 2 that are not sorted"),
        (_set("keys.1", 0, -1), "keys.1 with values outside 0 to 4"),
        (_set("keys.2", -1, 1000), "keys.2 with values outside 0 to 14"),
        (_set("starts.2", 1, 3), "starts of order 2 that are not the first"),
        (_set("starts.2", 1, 100), "starts.2 with values outside"),
        (_set("counts.1", 0, -3), "counts.1 with values outside"),
        (_set("special", 0, 7), "special with values outside 0 to 4"),
        (_typed("keys.1", torch.int32), "keys.1 of torch.int32"),
        (_typed("counts.2", torch.float32), "counts.2 of torch.float32"),
        (_typed("starts.1", torch.float64), "starts.1 of torch.float64"),
        (_is("base", 10**30), "base = 1000"),
        (_is("size", 6), "size = 6"),
        (_is("orders", 10**9), "orders = 1000000000"),
        (_is("orders", True), "orders = True"),
        (_is("counted", 1), "counted = 1"),
        (_is("smoothing", {"name": "good-turing"}), "name must be one of"),
        (_is("sources", 3), "sources 3"),
    ],
)
def test_damaged_contents_are_refused(change: Any, says: str, tmp_path: Path) -> None:
    """Unsorted keys, wrong offsets, types, ranges and metadata are refused without a checksum, and by the checksum."""
    path = tmp_path / "t.safetensors"
    for checksum in (False, True):
        NgramTable.count(DOCUMENTS, size=5, special=[4], orders=2).save(path)
        _rewritten(path, change, checksum=checksum)
        with pytest.raises(FileFormatError, match="do not have the checksum" if checksum else says):
            NgramTable.load(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("probability.1", 0, math.nan), "probability.1 with values outside 0 to 1"),
        (_set("probability.2", 0, 1.5), "probability.2 with values outside 0 to 1"),
        (_set("weight.2", 0, -0.5), "weight.2 with values outside"),
        (_set("weight.2", 0, math.inf), "weight.2 with values outside"),
        (_typed("probability.1", torch.float32), "probability.1 of torch.float32"),
        (_is("floor", math.nan), "floor = nan"),
        (_is("unseen_weight", "1"), "unseen_weight = '1'"),
    ],
)
def test_damaged_probabilities_are_refused(change: Any, says: str, tmp_path: Path) -> None:
    """In a table without counts, values that are no probabilities or weights are refused."""
    path = tmp_path / "m.arpa"
    path.write_text("\\data\\\nngram 1=2\nngram 2=1\n\\1-grams:\n-1 a -0.5\n-1 b\n\\2-grams:\n-1 a b\n\\end\\\n")
    NgramTable.from_arpa(path, tiny_tokenizer()).save(tmp_path / "t.safetensors")
    assert NgramTable.load(tmp_path / "t.safetensors").orders == 2
    _rewritten(tmp_path / "t.safetensors", change)
    with pytest.raises(FileFormatError, match=says):
        NgramTable.load(tmp_path / "t.safetensors")


def test_a_file_without_a_checksum_is_read(tmp_path: Path) -> None:
    """Tables of older versions have no checksum; their contents are checked all the same."""
    table = NgramTable.count(DOCUMENTS, size=5)
    table.save(tmp_path / "t.safetensors")
    _rewritten(tmp_path / "t.safetensors", lambda arrays, about: None)
    assert counts_of(NgramTable.load(tmp_path / "t.safetensors")) == counts_of(table)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: NgramTable.count(DOCUMENTS, size=5, orders=6), "orders must be a whole number from 1 to 5, got 6"),
        (lambda: NgramTable.count([[], []], size=5), "documents must be at least one token"),
        (lambda: NgramTable.count([[3, 3]], size=5, special=[3]), "documents must be at least one token"),
        (lambda: NgramTable.count(DOCUMENTS, size=5, smoothing="good-turing"), "name must be one of 'add-k'"),
        (lambda: Smoothing(name="mle", strength=1.0), "None for mle"),
        (lambda: Smoothing(name="kneser-ney", strength=1.5), "a discount of 0 to 1"),
        (lambda: Smoothing(name="add-k", strength=0.0), "a pseudo-count > 0"),
    ],
)
def test_bad_values_are_refused(make: Any, says: str) -> None:
    """A refused value is named with its parameter and rule."""
    with pytest.raises(ParameterError, match=says):
        make()


def test_another_tokenizer_is_refused() -> None:
    """A table whose ids come from no tokenizer is refused."""
    with pytest.raises(ModelError, match="must be trained with the generating model's tokenizer"):
        NgramTable.count(DOCUMENTS, size=5).check_tokenizer(tiny_tokenizer(), "ngram_style")


def test_a_tokenizer_with_further_added_tokens_fits_its_table() -> None:
    """Every id of the table keeps its meaning; a tokenizer with fewer tokens than the table's does not fit."""
    extended = copy.deepcopy(tiny_tokenizer())
    extended.add_tokens(["<tool>", "<answer>"])
    vocabulary, larger = TableVocabulary.of(tiny_tokenizer()), TableVocabulary.of(extended)
    table = NgramTable.count(DOCUMENTS, size=vocabulary.size, fingerprint=vocabulary.fingerprint)
    table.check_tokenizer(extended, "ngram_style")
    with pytest.raises(ModelError, match="must be trained with the generating model's tokenizer"):
        NgramTable.count(DOCUMENTS, size=larger.size, fingerprint=larger.fingerprint).check_tokenizer(
            tiny_tokenizer(), "ngram_style"
        )
    call = logitkit.chain("ngram_style(table='t', weight=1.0)").bind(tiny_model(), extended, "the <tool> cat", t=table)
    assert call.generate(max_new_tokens=3, do_sample=False).shape[1] == call.prompts.width + 3


@pytest.mark.parametrize(
    ("most", "dtype"), [(2**31 - 1, torch.int32), (2**31, torch.int64), (2**31 + 5, torch.int64), (7, torch.int32)]
)
def test_large_counts_survive_a_file(most: int, dtype: torch.dtype, tmp_path: Path) -> None:
    """Counts up to 2^31 - 1 are stored in 32 bits, larger counts in 64, and all are loaded unchanged."""
    level = Level(torch.arange(3), torch.tensor([1, most, 2]), torch.tensor([0, 3]))
    NgramTable([level], size=3).save(tmp_path / "t.safetensors")
    loaded = NgramTable.load(tmp_path / "t.safetensors").levels[0].counts
    assert loaded is not None and loaded.tolist() == [1, most, 2] and loaded.dtype == dtype


def _shortened(name: str) -> Any:
    """Return a change that drops the last element of an array."""
    return lambda arrays, about: arrays.__setitem__(name, arrays[name][:-1].clone())


@pytest.mark.parametrize("name", ["keys.1", "keys.2", "counts.1", "counts.2", "starts.1", "starts.2"])
def test_arrays_that_do_not_fit_each_other_are_refused(name: str, tmp_path: Path) -> None:
    """An array that is one element too short is refused, with the order in which it is."""
    path = tmp_path / "t.safetensors"
    NgramTable.count(DOCUMENTS, size=5, orders=2).save(path)
    _rewritten(path, _shortened(name))
    with pytest.raises(FileFormatError, match=r"arrays of order \d do not fit|starts of order 1 that"):
        NgramTable.load(path)


def test_a_table_without_a_longer_ngram_survives_its_file(tmp_path: Path) -> None:
    """Documents of one token have no bigram; the empty arrays of order 2 are saved and loaded."""
    NgramTable.count([[1], [1], [2]], size=4, orders=2).save(tmp_path / "t.safetensors")
    loaded = NgramTable.load(tmp_path / "t.safetensors")
    assert [len(level) for level in loaded.levels] == [2, 0] and loaded.tokens == 3
