"""Verdicts of the sandbox: right programs pass, and programs that claim to pass do not."""

# ruff: noqa: E501 (a line is a whole program)

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
    if name in ("scipy", "sympy", "pandas") and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    assert execute(program, PATIENT).reason == ""


def test_the_corpus_is_large() -> None:
    """The corpus has at least 85 programs, each of them once."""
    assert len(set(RIGHT)) == len(RIGHT) >= 85


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
        "__logitkit_compare__ = lambda *a: True\nassert 1 == 2",
        "import builtins\nfor n in dir(builtins):\n    if 'logitkit' in n: setattr(builtins, n, lambda *a: True)\nassert 1 == 2",
        "class E:\n    def __eq__(self, other): return 1\nassert E() == 2",
        "class B:\n    def __bool__(self): return True\nclass E:\n    def __eq__(self, other): return B()\nassert E() == 2",
        ANYTHING + "assert E() == 1 == 1",
        ANYTHING + "import sandbox_comparison\nassert E() == 1",
        "import bdb\nbdb.Bdb().set_trace()\nassert 0",
        "import sys\nsys.setprofile(lambda *a: None)\nassert 0",
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


TESTS = "assert f(1) == 3\nassert f(2) == 5\nassert 4 < f(2) <= 5"
CLAIMS = [
    "class N(int): __eq__ = int.__ge__\ndef f(x): return N(10 ** 9)",
    "class N(int):\n    __eq__ = int.__ge__\n    __module__ = 'builtins'\n    __qualname__ = 'int'\ndef f(x): return N(10 ** 9)",
    "class E:\n    def __eq__(self, other): return 1\ndef f(x): return E()",
    "class E:\n    __eq__ = type('C', (), {'__call__': lambda self, other: True})()\ndef f(x): return E()",
    "import functools\nclass E: pass\nE.__eq__ = functools.partialmethod(lambda self, other: True)\ndef f(x): return E()",
    "class M(type):\n    def __eq__(cls, other): return True\nclass K(metaclass=M): pass\ndef f(x): return K",
    "class E:\n    __eq__ = __gt__ = __le__ = lambda self, other: True\ndef f(x): return 3 if x == 1 else E()",
    "import fractions\nclass E(fractions.Fraction):\n    __eq__ = lambda self, other: True\ndef f(x): return E(1)",
    "import unittest.mock\nf = unittest.mock.MagicMock(return_value=unittest.mock.ANY)",
    "import sys\ntry: list(sys._getframe(1).f_locals['steps'].pop())\nexcept BaseException: pass\ndef f(x): return 0",
    "import sys\ndef see(frame, *a): frame.f_locals['tests'] = None\nsys.setprofile(see)\ndef f(x): return 0",
    "import bdb\nclass D(bdb.Bdb):\n    def user_line(self, frame): frame.f_lineno += 7\nD().set_trace()\ndef f(x): return 0",
    "import re\nknown = dict(re.findall(r'f\\((.)\\) == (.)', open('tests.py').read()))\ndef f(x): return int(known[str(x)])",
    "__logitkit_compare__ = lambda *a: True\ndef f(x): return 0",
    "import sys\ndef f(x):\n    sys._getframe(1).f_globals['__logitkit_compare__'] = lambda *a: True",
    "import builtins\nAssertionError = builtins.AssertionError = None\ndef f(x): return 0",
    "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): raise SystemExit(0)",
]


@pytest.mark.parametrize("program", CLAIMS)
def test_tests_believe_no_claim(isolation: str, program: str) -> None:
    """Classes that compare by borrowed functions, tracing, and reading or shadowing the tests count as no pass."""
    outcome = execute(program, PATIENT, tests=TESTS)
    assert not outcome.passed and outcome.reason


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(x): return 2 * x + 1", TESTS),
        ("import numpy as np\ndef f(x): return np.arange(x)", "assert (f(3) == [0, 1, 2]).all() and f(3).sum() == 3"),
        ("from fractions import Fraction\ndef f(x): return Fraction(x, 2)", "assert f(1) == 0.5 and 0 < f(1) < 1 != 2"),
        (
            "from collections import *\ndef f(x): return Counter(x)",
            "assert f('aab') == {'a': 2, 'b': 1} and f('aab') >= f('a')",
        ),
        (
            "from dataclasses import dataclass\n@dataclass(order=True)\nclass P:\n    x: int",
            "assert P(1) == P(1) < P(2)",
        ),
        (
            "from enum import *\nclass C(IntEnum): A = 1\ndef f(): return C.A",
            "assert f() == 1 and f() in [1] and f() is C.A",
        ),
        (
            "class P:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return s.x == o.x",
            "assert P(1) == P(1) and P(1) != P(2)",
        ),
        ("f = list", "calls = []\nassert not f() != [] and 2 > 1 > 0\nassert not (3 < 1 < calls[0])"),
    ],
)
def test_right_answers_pass_strict_tests(isolation: str, program: str, tests: str) -> None:
    """Values of libraries equal plain data, classes of the program equal each other, and chains stop early."""
    assert execute(program, PATIENT, tests=tests).reason == ""


def test_what_accident_can_reach_is_closed(isolation: str, tmp_path: Path) -> None:
    """No program writes outside its folder: not by databases, descriptors of folders, named pipes or many files."""
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
    killed = sandbox.outcome_of(["ready"], "secret", -9, late=False, seconds=2)  # the limit of processor time
    assert killed.reason == "not finished after 2 s"
