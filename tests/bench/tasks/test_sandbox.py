"""The sandbox: which programs pass, which fail and why, and what they cannot change."""

from __future__ import annotations

from pathlib import Path

import pytest

from logitkit.bench.tasks import Limits, execute, sandbox

QUICK = Limits(seconds=2)  # for programs that never end
PATIENT = Limits(seconds=120)


@pytest.fixture(params=["namespace", "guard"])
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test under each isolation that this system supports."""
    if request.param == "namespace" and sandbox.isolation() != "namespace":
        pytest.skip("this system gives no process a network namespace of its own")
    monkeypatch.setattr(sandbox, "isolation", lambda: request.param)
    return str(request.param)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("assert sorted([2, 1]) == [1, 2]", None),
        (
            "import re, math, collections, itertools, typing\nopen('note', 'w').write('x')\nassert open('note').read()",
            None,
        ),
        ("assert False, 'wrong'", "AssertionError: wrong"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import os\nos._exit(0)", "exit status 0"),
        ("print('logitkit: passed')\nraise KeyError(1)", "KeyError"),
        ("while True: pass", "not finished after 2 s"),
        ("x = 'a' * (2 << 30)", "MemoryError"),
        ("open('big', 'w').write('x' * (1 << 22))", "File too large"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 9))", "socket"),
        ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')", "not allowed"),
        ("import os\nos.fork()", "os.fork is not allowed"),
        ("import subprocess\nsubprocess.run(['true'])", "subprocess.Popen is not allowed"),
        ("import ctypes\nctypes.CDLL(None)", "ctypes"),
        ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "not allowed"),
        ("def f(:", "SyntaxError"),
        ("x = '\\ud800'", None),
    ],
)
def test_the_outcome_of_a_program(isolation: str, program: str, why: str | None) -> None:
    """A program passes, or fails with the expected reason."""
    outcome = execute(program, QUICK if program.startswith("while") else PATIENT)
    assert outcome.passed == (why is None), outcome
    assert why is None or why in outcome.reason


def test_nothing_outside_the_folder_is_changed(isolation: str, tmp_path: Path) -> None:
    """A program cannot write, remove or rename files outside its folder."""
    there = tmp_path / "there"
    there.write_text("safe")
    for program in (
        f"open({str(there)!r}, 'w')",
        f"import os\nos.remove({str(there)!r})",
        f"import os\nos.rename({str(there)!r}, 'mine')",
        f"import os\nos.open({str(there)!r}, os.O_WRONLY | os.O_TRUNC)",
        f"import shutil\nshutil.rmtree({str(tmp_path)!r})",
        f"open({str(tmp_path / 'new')!r}, 'x')",
    ):
        outcome = execute(program, PATIENT)
        assert not outcome.passed and "not allowed" in outcome.reason, (program, outcome)
    assert there.read_text() == "safe" and list(tmp_path.iterdir()) == [there]


def test_a_namespace_has_no_network() -> None:
    """In a namespace the only network interface is the loopback, so that the audit hook is not needed."""
    if sandbox.isolation() != "namespace":
        pytest.skip("this system gives no process a network namespace of its own")
    program = (
        "lines = open('/proc/net/dev').read().splitlines()[2:]\nraise KeyError([line.split()[0] for line in lines])"
    )
    assert execute(program, PATIENT).reason == "KeyError: ['lo:']"
