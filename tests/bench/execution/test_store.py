"""The store: records are only appended, by one process at a time, and survive a crash at any moment."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from bench_runs import tiny_run
from killed_runs import waiting_run
from logitkit.bench.execution import MEASURED_FIELDS, Store, carry_out, missing, plan
from logitkit.errors import FileFormatError, ModeError
from logitkit.execution import local


def reproducible(store: Store) -> dict[str, object]:
    """Return the records without the fields that a clock measured."""
    return {
        key: {name: value for name, value in record.items() if name not in MEASURED_FIELDS}
        for key, record in store.records.items()
    }


def test_killed_at_random_points_it_ends_with_the_same_results(bench_place: Path, tmp_path: Path) -> None:
    """A run that is killed four times at random, once within a line, ends with the records of an undisturbed run."""
    run = tiny_run(bench_place)
    with Store(tmp_path / "whole") as whole:
        carry_out(run, whole)
    folder, file = tmp_path / "broken", tmp_path / "broken" / "results.jsonl"
    dice, sizes = random.Random(0), []
    for attempt in range(4):
        with waiting_run(run, folder) as worker:
            before = file.stat().st_size
            worker.send("go on")  # the first unit is written whole
            while file.stat().st_size == before and not worker.poll():
                time.sleep(0.002)
            worker.send("go on")  # the second one may be cut anywhere
            time.sleep(dice.uniform(0, 0.02))
        sizes.append(len(Store(folder).records))
        if attempt == 2:
            with file.open("a") as out:
                out.write('{"key": "torn", "metr')
    assert sizes == sorted(sizes) and 0 < sizes[0] < len(whole.records)
    with Store(folder) as store:
        carry_out(run, store)
        assert missing(run, store) == []
    assert reproducible(store) == reproducible(whole) == reproducible(Store(folder))
    assert len(file.read_text().splitlines()) == len(store.records)


def test_stored_units_are_not_run_again(bench_place: Path, tmp_path: Path) -> None:
    """Only the unit that lacks a record runs again, and stored records do not change."""
    run = tiny_run(bench_place)
    with Store(tmp_path) as store:
        carry_out(run, store)
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    (tmp_path / "results.jsonl").write_text("".join(f"{line}\n" for line in lines[:-1]))
    ran = []
    with Store(tmp_path) as store:
        carry_out(run, store, advance=ran.append)
        carry_out(run, store, advance=ran.append)
    assert ran == [plan(run)[-1]]
    assert (tmp_path / "results.jsonl").read_text().splitlines()[:-1] == lines[:-1]


def test_an_engine_may_answer_in_any_order(bench_place: Path, tmp_path: Path) -> None:
    """An engine that returns the units backwards and one of them twice gives the same records."""
    run = tiny_run(bench_place)

    def backwards(job, units):  # type: ignore[no-untyped-def]
        yield from local(job, [*units[::-1], units[0]])

    with Store(tmp_path / "a") as first:
        carry_out(run, first)
    with Store(tmp_path / "b") as second:
        carry_out(run, second, engine=backwards)
    assert reproducible(first) == reproducible(second)


def test_one_process_writes(tmp_path: Path) -> None:
    """A second process that opens the store for writing is refused."""
    with Store(tmp_path), pytest.raises(ModeError, match="one process at a time"), Store(tmp_path):
        pass


def test_a_line_that_is_no_record_is_an_error(tmp_path: Path) -> None:
    """The error names file and line; a last line without a line break is incomplete and no error."""
    (tmp_path / "results.jsonl").write_text('{"key": "a"}\n[1]\n')
    with pytest.raises(FileFormatError, match=r"results.jsonl:2: must be a record"):
        Store(tmp_path)
    (tmp_path / "results.jsonl").write_text('{"key": "a", "text": "\u2028"}\n[1]')
    assert list(Store(tmp_path).records) == ["a"]


def test_a_line_torn_anywhere_is_no_error(tmp_path: Path) -> None:
    """A last line that ends at any byte, also within a character, is left out when read and removed when written."""
    whole = '{"key": "a", "text": "é"}\n'.encode()
    torn = '{"key": "b", "text": "naïve 日本 🦊"}'.encode()
    for end in range(len(torn)):
        (tmp_path / "results.jsonl").write_bytes(whole + torn[:end])
        (tmp_path / "sessions.jsonl").write_bytes(torn[:end])
        assert list(Store(tmp_path).records) == ["a"]
        with Store(tmp_path) as store:
            store.add([{"key": "b"}])
        assert list(Store(tmp_path).records) == ["a", "b"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"key": ["a"]}',
        b'{"key": null}',
        b"[" * 100_000,
        b'{"key": ' + b"[" * 100_000,
        b'{"key": "a", "n": ' + b"9" * 10_000 + b"}",
        b'{"key": "\xff"}',
        b"",
    ],
)
def test_foreign_lines_are_named(tmp_path: Path, line: bytes) -> None:
    """A whole line that is no record is an error with its number, whatever the line holds."""
    (tmp_path / "results.jsonl").write_bytes(b'{"key": "a"}\n' + line + b"\n")
    with pytest.raises(FileFormatError, match=r"results.jsonl:2: must be a record"):
        Store(tmp_path)
