"""Bad input to the studies: one line on standard error, exit status 2, and no model is loaded."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from fresh import ROOT
from logitkit import models
from logitkit.errors import FileFormatError, ParameterError
from studies import command, guided_cost, units
from studies.evidence import Page
from studies.guided_records import CONTROL, METHODS
from studies.records import append_record, read_records, resumed_records

SETTINGS = {"seed": 0}
STUDIES = sorted(path.stem for path in (ROOT / "studies").glob("*.py") if "__main__" in path.read_text())
PAGES = [name for name in STUDIES if "page: Page = None" in (ROOT / "studies" / f"{name}.py").read_text()]
PLAIN, *GUIDED = ("", *(group[0] for group in METHODS.values()))

Command = Callable[..., str]


@pytest.fixture
def failed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``python -m studies.NAME ARGUMENTS``, which must end with status 2; returns its line on standard error."""
    monkeypatch.setattr(models, "load", lambda name, like=None: pytest.fail("a model is loaded"))
    monkeypatch.delenv("LOGITKIT_DATA", raising=False)

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.delitem(sys.modules, f"studies.{name}", raising=False)  # run anew, as `python -m` does
        with pytest.raises(SystemExit) as stop:
            runpy.run_module(f"studies.{name}", run_name="__main__", alter_sys=True)
        (line,) = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and line.startswith("error: ")
        return line.removeprefix("error: ")

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A results file with three records of the same settings."""
    path = tmp_path / "records.jsonl"
    for number in range(3):
        append_record(path, {"settings": SETTINGS, "item": number})
    return path


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_ends_with_the_same_call(name: str) -> None:
    """Every study prints its errors through `command.run`."""
    text = (ROOT / "studies" / f"{name}.py").read_text(encoding="utf-8")
    ends = ['if __name__ == "__main__":\n    command.run(main)\n', 'if __name__ == "__main__":\n    command.run(app)\n']
    assert text.endswith(tuple(ends)) and "typer.run(" not in text


def test_a_module_with_a_main_is_a_study() -> None:
    """And nothing but studies runs commands in this way."""
    modules = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "studies").glob("*.py")}
    assert {name for name, text in modules.items() if "\ndef main(" in text or "\napp = typer" in text} == {*STUDIES}
    assert {name for name, text in modules.items() if "command.run(" in text} == {*STUDIES}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("power_problems", ["--data", "nowhere"]),
        ("guided_code", ["--data", "nowhere"]),
        ("partial_words", ["--data", "nowhere"]),
        ("context_answers", ["--data", "nowhere"]),
        ("critical_tokens", ["--data", "nowhere"]),
        ("ensemble_quality", ["lambada", "--data", "nowhere"]),
        ("ensemble_generation", ["--data", "nowhere"]),
        ("style_prompting", ["--data", "nowhere"]),
        ("sampler_referee", ["--data", "nowhere"]),
        ("cascade_curves", ["collect", "small", "large", "nowhere", "work"]),
        ("cascade_curves", ["report", "nowhere", "out"]),
        ("bench_pairs", ["nowhere", "core", "ensemble"]),
        ("byte_speed", ["nowhere"]),
        ("style_sweep", ["nowhere"]),
        ("guided_cost", ["nowhere"]),
    ],
)
def test_missing_data(
    failed: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[str]
) -> None:
    """The line names the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "load_tokenizer", lambda name: None)
    assert "nowhere" in failed(name, *arguments) and list(tmp_path.iterdir()) == []


def test_results_that_cannot_be_written(failed: Command, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found before a model is loaded; folders that are missing are created later, by the first record."""
    place = file / "folder" / "out.jsonl"
    said = failed("unspaced_words", "--out", place)
    assert said.endswith(f"out must be a file that can be written, got '{place}'; {file} is a file; name another")
    assert resumed_records(file.parent / "new" / "out.jsonl", SETTINGS, "study") == []
    assert not (file.parent / "new").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for locked, found in ((file, "a file"), (file.parent / "x.jsonl", "a folder that cannot be written")):
        with pytest.raises(ParameterError, match=f"study: out must be .* is {found}; name another"):
            resumed_records(locked, SETTINGS, "study")


def test_a_damaged_line_is_named(file: Path) -> None:
    """By file and number, in data and in results; a line must hold an object."""
    for damage in ("{'item': 1}", "[1]", ""):
        lines = file.read_text().splitlines()
        lines[1] = damage
        file.write_text("\n".join(lines) + "\n")
        text = f"line 2 of {file} must be a JSON object, got {damage!r}"
        for reader in (read_records, lambda path: resumed_records(path, SETTINGS, "study")):
            with pytest.raises(FileFormatError) as error:
                reader(file)
            assert text in str(error.value)


def test_a_line_break_inside_a_text_ends_no_record(file: Path) -> None:
    """Unicode has line separators that JSON allows inside strings."""
    file.write_text('{"text": "a\u2028b\x85c"}\r\n', encoding="utf-8", newline="")
    assert read_records(file) == [{"text": "a\u2028b\x85c"}]


@pytest.mark.parametrize("kept", [0, 2])
def test_a_last_line_that_was_cut_off_is_removed(file: Path, capsys: pytest.CaptureFixture[str], kept: int) -> None:
    """The study says so, and continues; as data, the file is damaged."""
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:kept]) + lines[kept][:-4])
    with pytest.raises(FileFormatError, match=f"line {kept + 1} of"):
        read_records(file)
    assert len(resumed_records(file, SETTINGS, "study")) == kept
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"study: {file}: removed line {kept + 1}")
    append_record(file, {"settings": SETTINGS, "item": 9})
    assert [record["item"] for record in resumed_records(file, SETTINGS, "study")] == [*range(kept), 9]
    assert capsys.readouterr().err == ""


def test_a_whole_last_line_without_its_end_is_kept(file: Path) -> None:
    """The next record gets a line of its own."""
    file.write_bytes(file.read_bytes()[:-1])
    assert len(resumed_records(file, SETTINGS, "study")) == 3
    append_record(file, {"settings": SETTINGS})
    assert len(read_records(file)) == 4


@pytest.mark.parametrize("text", ["# A page", '{"settings": {"seed": 1}}\n{"settings": ', '{"a": 1}\n{"b'])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, text: str) -> None:
    """A file of another study keeps its last line, even one that looks cut off."""
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(FileFormatError):
        resumed_records(path, SETTINGS, "study")
    assert path.read_text() == text


def test_settings_of_every_record_are_checked(file: Path, tmp_path: Path) -> None:
    """A later record of another run, or without settings; a folder is no results file."""
    for other in ({"settings": {"seed": 1}}, {"item": 3}):
        lines = file.read_text().splitlines(keepends=True)[:3]
        file.write_text("".join(lines) + json.dumps(other) + "\n")
        with pytest.raises(FileFormatError, match=r"study: .* must be a file of .* in line 4; name another file"):
            resumed_records(file, SETTINGS, "study")
        assert len(resumed_records(file, None, "study")) == 4
    with pytest.raises(FileFormatError, match="got a folder"):
        resumed_records(tmp_path, SETTINGS, "study")


@pytest.mark.parametrize("name", ["guided_code", "power_problems"])
def test_an_unknown_device(failed: Command, name: str) -> None:
    """Found before the data are read."""
    rule = "device must be a device that torch has on this machine"
    assert failed(name, "--device", "bogus", "--data", "nowhere") == f"{name}: {rule}, got 'bogus'"


def test_a_cluster_has_devices_of_its_own() -> None:
    """The device is checked on this machine only for units that run here; the dtype always."""
    assert units.placed("study", "cuda:7", "bfloat16", "ray").device == "cuda:7"
    with pytest.raises(ParameterError, match="study: device must be"):
        units.placed("study", "bogus", "bfloat16", "local")
    with pytest.raises(ParameterError, match="study: dtype must be"):
        units.placed("study", "cpu", "bfloat17", "ray")


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("power_problems", ["--dtype", "bfloat17"], "did you mean 'bfloat16'?"),
        ("cascade_speed", ["small", "large", "--dtype", "half"], "cascade_speed: dtype must be"),
        ("ensemble_quality", ["lambda"], "no task named 'lambda'; did you mean 'lambada'?"),
        ("checked_drafts", ["--data", ".", "--pair", "news"], "no pair named 'news'"),
        ("style_sweep", ["README.md", "--rule", "nothing"], "no rule named 'nothing'"),
        ("gpu_bytes", ["--model", "random-9b"], "no model named 'random-9b'"),
        (
            "power_problems",
            ["--items", "1"],
            "power_problems: --items must be a number >= 2, got '1'; see python -m studies.",
        ),
        ("power_problems", ["--itmes", "2"], "power_problems: no option named '--itmes'; did you mean '--items'"),
        ("bench_pairs", [], "bench_pairs: RESULTS must be given, got nothing; see python -m studies.bench_pairs"),
    ],
)
def test_unknown_names_and_values(failed: Command, name: str, arguments: list[str], said: str) -> None:
    """In the words of the commands of logitkit."""
    assert said in failed(name, *arguments)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_does_not_exist(failed: Command, name: str) -> None:
    """Found before the study begins, with any option that must be given left out or not."""
    required = {"guided_cost": ["a"], "bench_pairs": ["a", "b", "c"], "cascade_answers": ["a", "b"]}.get(name, [])
    options = {"contrastive_amateur": ("large", "small"), "proxy_tuning": ("large", "small", "tuned")}.get(name, ())
    required += [text for option in options for text in (f"--{option}", "a")]
    said = failed(name, *required, "--page", "nowhere.md")
    assert said == f"{name}: page must be an existing file, got 'nowhere.md'; name a page of results"


def test_every_study_with_a_page_has_the_shared_option() -> None:
    """Of one type, so that no study finds a missing page at the end of its run."""
    found = {name: importlib.import_module(f"studies.{name}").main.__annotations__ for name in STUDIES if name in PAGES}
    assert len(PAGES) >= 12 and all(annotations["page"] == "Page" for annotations in found.values())
    others = {name for name in STUDIES if "publish(" in (ROOT / "studies" / f"{name}.py").read_text()}
    assert others <= {*PAGES} and Page is not None


def _answer(arm: str, item: str = "MBPP/1") -> dict[str, Any]:
    return {"arm": arm, "item": item, "half": "held-out", "text": "x", "tokens": 2, "seconds": 1.0}


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], f"with all arms, got none of plain decoding, {', '.join(GUIDED)}, {CONTROL}"),
        ([_answer(arm) for arm in (PLAIN, *GUIDED)], f"got none of {CONTROL}; run studies.guided_code with --control"),
        ([_answer(arm) for arm in (PLAIN, *GUIDED[1:], CONTROL)], f"got none of {GUIDED[0]};"),
        ([_answer(arm) for arm in (*GUIDED, CONTROL)], "got none of plain decoding;"),
        ([_answer(arm, f"MBPP/{arm}") for arm in (PLAIN, *GUIDED, CONTROL)], "a problem that all arms answered"),
        ([_answer(PLAIN), {"settings": {}, "item": 1}], "got a record without arm, seconds, text, tokens in line 2"),
    ],
)  # fmt: skip
def test_costs_need_all_arms_and_the_control(
    failed: Command, tmp_path: Path, records: list[dict[str, Any]], said: str
) -> None:
    """Without an arm or the control, or of another study, a file is refused, and no table is written."""
    path = tmp_path / "cost.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert said in failed("guided_cost", path)
    path.write_text("".join(json.dumps(_answer(arm)) + "\n" for arm in (PLAIN, *GUIDED, CONTROL)))
    assert len(guided_cost.costed(path)) == 2 + len(GUIDED)


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of the study is no bad input; and a run without errors ends with status 0."""

    def wrong() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["study"])
    with pytest.raises(ZeroDivisionError):
        command.run(wrong)
    with pytest.raises(SystemExit) as stop:
        command.run(lambda: None)
    assert not stop.value.code


@pytest.mark.parametrize("error", [KeyboardInterrupt, typer.Abort])
def test_an_interrupt_has_its_own_status(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """As of a process that SIGINT ended."""

    def interrupted() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["study"])
    with pytest.raises(SystemExit) as stop:
        command.run(interrupted)
    assert stop.value.code == 130
