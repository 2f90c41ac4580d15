"""Verdicts of the sandbox: right programs pass, and programs that claim to pass do not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from logitkit.bench.tasks import Answer, HumanEval, Limits, execute, sandbox

sys.path.insert(0, str(Path(__file__).parent))
from right_programs import RIGHT

PATIENT = Limits(seconds=120)  # the verdict of a program that ends depends on no speed
ANYTHING = "class E:\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"


@pytest.fixture(params=["namespace", "guard"])
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test under each isolation that this system supports."""
    if request.param == "namespace" and sandbox.isolation() != "namespace":
        pytest.skip("this system gives no process a network namespace of its own")
    monkeypatch.setattr(sandbox, "isolation", lambda: request.param)
    return str(request.param)


@pytest.mark.parametrize("program", RIGHT)
def test_right_programs_pass(isolation: str, program: str) -> None:
    """Ordinary modules work: numpy, threads, event loops, temporary files, databases in memory and in the folder."""
    name = program.removeprefix("import ").split(".")[0].split(";")[0].split(" ")[0]
    if name in ("scipy", "sympy") and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    assert execute(program, PATIENT).reason == ""


def test_the_corpus_is_large() -> None:
    """The corpus has at least 60 programs, each of them once."""
    assert len(set(RIGHT)) == len(RIGHT) >= 60


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys._getframe(1).f_globals['tell']('passed')",
        "import sys\nfor n in ('report', 'tell', 'finish', 'audit'):\n    f = sys._getframe(1)\n"
        "    g = {**f.f_globals, **f.f_locals}.get(n)\n    g and g('logitkit.end')\nassert False",
        "import __main__\n__main__.tell('passed')",
        "import os\nfor fd in range(3, 40):\n    try: os.write(fd, b'passed \\nlogitkit: passed\\n')\n"
        "    except OSError: pass\n"
        "os._exit(0)",
        "import sys\nf = sys._getframe(1)\nwhile f:\n    f.f_trace = None\n    f = f.f_back\n"
        "sys.audit('logitkit.end')\nassert 0",
        "import sys\nsys.settrace(lambda *a: None)\nassert 0",
        "import gc\nassert not gc.get_objects()",
        "import os\nprint('logitkit: passed')\nos._exit(0)",
        "import sys, os\nsys.exit = os._exit\nraise SystemExit(0)",
        "import builtins\nbuiltins.exec = lambda *a: None\nassert False",
        "class X(Exception):\n    def __str__(self): import os; os._exit(0)\nraise X",
        ANYTHING + "def f(): return E()\nassert f() == 1",
        ANYTHING + "def f(): return [E()]\nassert f() == [1]",
        ANYTHING + "assert not E() != 1",
        ANYTHING + "assert E() in [1, 2]",
        "from unittest.mock import ANY\nassert ANY == 1",
    ],
)
def test_programs_that_claim_to_pass_fail(isolation: str, program: str) -> None:
    """Neither a forged report nor an object that equals everything counts as a pass."""
    assert not execute(program, PATIENT).passed


@pytest.mark.parametrize(
    "answer",
    [
        " return E()",
        " return {'a': E()}['a']",
        " return N(7)",
        " import unittest.mock; return unittest.mock.ANY",
        " import builtins; builtins.abs = lambda x: 0; return 9",
        " import os; os._exit(0)",
        " raise SystemExit(0)",
    ],
)
def test_tests_compare_with_plain_data(isolation: str, answer: str) -> None:
    """In tests, an object whose class the program wrote equals no plain data, whatever its methods return."""
    prompt = ANYTHING + "class N(int):\n    def __eq__(self, other): return isinstance(other, int)\ndef f(x):"
    test = "def check(f):\n    assert f(1) == 3\n    assert abs(f(1) - 3) < 1e-6"
    row = {"task_id": "0", "prompt": prompt, "test": test, "entry_point": "f"}
    task = HumanEval(rows=[row], seconds=120.0)
    assert task.judge(task.samples[0], Answer(text=answer)) == {"pass_at_1": 0.0}
    assert task.judge(task.samples[0], Answer(text=" return 3")) == {"pass_at_1": 1.0}


def test_what_accident_can_reach_is_closed(isolation: str, tmp_path: Path) -> None:
    """A program changes nothing outside its folder through databases, folder descriptors, pipes or files' numbers."""
    there = tmp_path / "there"
    there.write_text("safe")
    there.chmod(0o600)
    outside = repr(str(tmp_path))
    for program in (
        f"import sqlite3\nsqlite3.connect({outside} + '/new')",
        f"import sqlite3\nsqlite3.connect('file:' + {outside} + '/new?mode=rwc', uri=True)",
        f"import sqlite3\nc = sqlite3.connect(':memory:')\nc.execute('attach ? as a', ({outside} + '/new',))",
        f"import sqlite3\nc = sqlite3.connect('own.db')\nc.execute('vacuum into ?', ({outside} + '/new',))",
        f"import os\nd = os.open({outside}, os.O_RDONLY)\nos.remove('there', dir_fd=d)",
        f"import os\nd = os.open({outside}, os.O_RDONLY)\nos.mkdir('new', dir_fd=d)",
        f"import os\nd = os.open({outside}, os.O_RDONLY)\nos.open('new', os.O_CREAT | os.O_WRONLY, dir_fd=d)",
        f"import os\nd = os.open({outside}, os.O_RDONLY)\nos.rename('there', 'mine', src_dir_fd=d)",
        f"import os\nopen('a', 'w').close()\nos.link('a', {outside} + '/new')",
        f"import os\nos.symlink('a', {outside} + '/new')",
        f"import os\nos.mkfifo({outside} + '/new')",
        f"import os\nos.mknod({outside} + '/new')",
        f"import os\nos.fchmod(os.open({outside} + '/there', os.O_RDONLY), 0)",
        f"import shutil\nopen('a', 'w').close()\nshutil.copy('a', {outside} + '/new')",
        f"import os\nos.symlink({outside}, 'way')\nopen('way/new', 'w')",
    ):
        assert not execute(program, PATIENT).passed, program
    assert there.read_text() == "safe" and there.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [there]


def test_the_environment_of_the_parent_is_closed(isolation: str) -> None:
    """A program cannot read the environment of another process."""
    import os

    for pid in ("os.getppid()", str(os.getpid())):
        program = f"import os\nprint(open(f'/proc/{{{pid}}}/environ').read())"
        assert not execute(program, PATIENT).passed
    assert not execute("open('/proc/self/mem', 'rb')", PATIENT).passed


def test_the_number_of_files_is_limited(isolation: str) -> None:
    """A program makes at most as many files and folders as its limits allow."""
    limits = Limits(seconds=120, entries=20)
    for make in ("open(str(i), 'w').close()", "os.mkdir(str(i))", "os.symlink('a', str(i))"):
        program = f"import os\nfor i in range({{}}):\n    {make}"
        assert execute(program.format(20), limits).passed
        assert "more than 20" in execute(program.format(21), limits).reason


def test_a_program_killed_for_time_says_so(isolation: str) -> None:
    """An endless program is reported as not finished, whichever limit the system enforced first."""
    assert execute("while True: pass", Limits(seconds=0.5)).reason == "not finished after 0.5 s"
    killed = sandbox._outcome(["ready"], "secret", -9, late=False, seconds=2)  # the limit of processor time
    assert killed.reason == "not finished after 2 s"
