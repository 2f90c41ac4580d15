"""Damaged files: whatever bytes of a right file change, its reader returns a value or raises one error."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import logitkit
from fakes import router_head
from logitkit.bench.config import datasource, runfile
from logitkit.bench.config.example import example_run
from logitkit.bench.execution import Store
from logitkit.errors import LogitkitError
from logitkit.models.cache import MANIFEST, read_manifest
from logitkit.processors.alignment import Alignment, AlignmentVocabulary, align
from logitkit.processors.cascade import RouterHead
from logitkit.processors.cascade.label_files import (
    DivergenceLabels,
    LabelSettings,
    append_labels,
    read_labels,
    resume_labels,
)
from logitkit.processors.cascade.model_fingerprint import PairFingerprint
from logitkit.processors.ngram import NgramTable
from logitkit.processors.ngram.corpus import TextFiles
from logitkit.processors.ngram.training import train
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

Reader = Callable[[Path], object]
ARPA = "\\data\\\nngram 1=2\nngram 2=1\n\n\\1-grams:\n-1.0\ta\t-0.3\n-0.5\tb\n\n\\2-grams:\n-0.2\ta b\n\n\\end\\\n"
FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _settings() -> LabelSettings:
    """Return the settings of a file of labels."""
    return LabelSettings(judge="answer", tokens=8, pair=PairFingerprint("a", "b", "c"))


def _in_its_folder(read: Reader) -> Reader:
    """Return a reader of the folder of a file."""
    return lambda path: read(path.parent)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, Reader]]:
    """A right file of every kind, and its reader."""
    folder = tmp_path_factory.mktemp("right")
    example_run(folder)
    text = "models: [tiny]\nchains: ['', cfg(1.5)]\ntasks: {lambada: {data: texts.jsonl}}\n"
    record = {"key": "a", "text": "é\u2003ü", "metrics": {"hit": 1.0}}
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (record, record | {"key": "b"}))
    tokenizer = tiny_tokenizer()
    train(["abcab", "bca"], tokenizer).save(folder / "t.safetensors")
    helper = AlignmentVocabulary.of(foreign_model(), foreign_tokenizer())
    align("exact", helper, AlignmentVocabulary.of(tiny_model(), tokenizer)).save(folder / "a.safetensors")
    router_head(tiny_model(), tokenizer).save(folder / "head")
    resume_labels(folder / "l.jsonl", _settings())
    append_labels(
        folder / "l.jsonl",
        DivergenceLabels(prompt=0, prompt_ids=[5], answer_ids=[6, 7], small_ids=[6, 8], labels=[0, 2]),
    )
    manifest = {"format": 1, "name": "m", "licence": "l", "source": "s", "files": {"f": {"size": 1, "sha256": "0"}}}
    contents: dict[str, tuple[bytes, Reader]] = {
        "run.yaml": (text.encode(), runfile.read),
        "chain.yaml": (
            b"- {name: cfg, params: {scale: 2.0}}\n- {name: top_p, params: {top_p: 0.9}}\n",
            logitkit.Chain.from_file,
        ),
        "chain.json": (b'[{"name": "cfg", "params": {"scale": 2.0, "negative": "\\u00e9"}}]', logitkit.Chain.from_file),
        "results.jsonl": (rows.encode(), _in_its_folder(Store)),
        "rows.jsonl": (rows.encode(), datasource.read),
        "rows.jsonl.gz": (gzip.compress(rows.encode(), mtime=0), datasource.read),
        "corpus.jsonl.gz": (gzip.compress(rows.encode(), mtime=0), lambda path: train(TextFiles([path]), tokenizer)),
        "corpus.jsonl": (rows.encode(), lambda path: train(TextFiles([path]), tokenizer)),
        "model.arpa": (ARPA.encode(), lambda path: NgramTable.from_arpa(path, tokenizer)),
        "model.arpa.gz": (gzip.compress(ARPA.encode(), mtime=0), lambda path: NgramTable.from_arpa(path, tokenizer)),
        "t.safetensors": ((folder / "t.safetensors").read_bytes(), NgramTable.load),
        "a.safetensors": ((folder / "a.safetensors").read_bytes(), Alignment.load),
        "head.json": ((folder / "head" / "head.json").read_bytes(), _in_its_folder(RouterHead.load)),
        "head.safetensors": ((folder / "head" / "head.safetensors").read_bytes(), _in_its_folder(RouterHead.load)),
        "l.jsonl": ((folder / "l.jsonl").read_bytes(), read_labels),
        "labels.jsonl": ((folder / "l.jsonl").read_bytes(), lambda path: resume_labels(path, _settings())),
        MANIFEST: (json.dumps(manifest).encode(), _in_its_folder(read_manifest)),
    }
    return contents


KINDS = (
    *("run.yaml", "chain.yaml", "chain.json", "results.jsonl", "rows.jsonl", "rows.jsonl.gz", "corpus.jsonl.gz"),
    *("corpus.jsonl", "model.arpa", "model.arpa.gz", "t.safetensors", "a.safetensors", "head.json", "head.safetensors"),
    *("l.jsonl", "labels.jsonl", MANIFEST),
)
CHANGE = st.tuples(
    st.floats(0, 1, exclude_max=True),  # where
    st.integers(0, 12),  # bytes removed there
    st.binary(max_size=8) | st.sampled_from([b"NaN", b"-1", b"1e999", b"null", b"[", b"\xff", b"9" * 30, b'"', b"\n"]),
)


def _place(folder: Path, name: str, files: dict[str, tuple[bytes, Reader]]) -> Path:
    """Write the right files that a reader needs, and return the path of one."""
    for other in ("head.json", "head.safetensors"):
        (folder / other).write_bytes(files[other][0])
    if name == "run.yaml":
        example_run(folder)
    return folder / name


@pytest.mark.parametrize("kind", KINDS)
def test_right_files_are_read(tmp_path: Path, files: dict[str, tuple[bytes, Reader]], kind: str) -> None:
    """Without damage every file of this module is read."""
    content, read = files[kind]
    path = _place(tmp_path, kind, files)
    path.write_bytes(content)
    read(path)


@pytest.mark.parametrize("kind", KINDS)
@FUZZ
@given(changes=st.lists(CHANGE, min_size=1, max_size=3), kept=st.floats(0, 1) | st.just(1.0))
def test_damage_is_a_value_or_an_error(
    tmp_path: Path,
    files: dict[str, tuple[bytes, Reader]],
    kind: str,
    changes: list[tuple[float, int, bytes]],
    kept: float,
) -> None:
    """Changed, cut and inserted bytes raise nothing but one error of logitkit."""
    content, read = files[kind]
    for where, removed, inserted in changes:
        place = int(where * len(content))
        content = content[:place] + inserted + content[place + removed :]
    path = _place(tmp_path, kind, files) if not (tmp_path / "head.json").exists() else tmp_path / kind
    if kind.startswith("head"):
        _place(tmp_path, kind, files)
    path.write_bytes(content[: int(kept * len(content))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(path)
        except LogitkitError as error:
            assert str(error)


@pytest.mark.parametrize("kind", ["results.jsonl", "labels.jsonl"])
def test_files_that_grow_are_read_after_any_cut(
    tmp_path: Path, files: dict[str, tuple[bytes, Reader]], kind: str
) -> None:
    """A file to which a crash wrote only a part, cut at any byte, is continued: whole lines stay."""
    content, read = files[kind]
    path = tmp_path / kind
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        read(path)
        if kind == "results.jsonl":
            with Store(tmp_path) as store:
                assert len(store.records) == content[:cut].count(b"\n")


@pytest.mark.parametrize("kind", ["results.jsonl", "labels.jsonl", "sessions.jsonl"])
@pytest.mark.parametrize("content", ["[1, 2]", '{"mine": 1}', "a note without a line break", "\x7fELF", "é"])
def test_foreign_files_are_not_cut(tmp_path: Path, kind: str, content: str) -> None:
    """A file of something else without a line break is no torn record: it is named, and keeps its content."""
    (tmp_path / kind).write_text(content)
    run = example_run(tmp_path)
    with pytest.raises(LogitkitError):
        if kind == "labels.jsonl":
            resume_labels(tmp_path / kind, _settings())
        else:
            with Store(tmp_path) as store:
                store.begin(run, {})
    assert (tmp_path / kind).read_text() == content


@pytest.mark.parametrize(
    "change",
    [
        {"labels": [0, 3]},
        {"labels": [0]},
        {"labels": None},
        {"small_ids": [6, "8"]},
        {"answer_ids": [6, -1]},
        {"prompt_ids": 5},
        {"prompt_ids": [True]},
        {"prompt": "first"},
        {"labels": [0, 1.0]},
    ],
)
def test_false_labels_are_refused(tmp_path: Path, files: dict[str, tuple[bytes, Reader]], change: object) -> None:
    """Labels of another type or number than the tokens would fail in the training, and are refused when read."""
    first, second, _ = files["l.jsonl"][0].split(b"\n")
    assert isinstance(change, dict)
    (tmp_path / "l.jsonl").write_text(f"{first.decode()}\n{json.dumps(json.loads(second) | change)}\n")
    with pytest.raises(LogitkitError, match="must be a file of labels"):
        read_labels(tmp_path / "l.jsonl")
