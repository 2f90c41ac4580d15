"""Run a program that a model wrote, in a restricted process of its own.

The process has limits on processor time, memory, size and number of files, a deadline, a temporary folder and an empty
environment, and cannot start further processes. Where the system allows it (Linux, ``unshare``), it has a network
namespace without interfaces and cannot see other processes. On all systems an audit hook refuses connections,
processes, foreign libraries, databases and changes outside the folder, and the folders of other processes in ``/proc``.

The parent process judges: a program has passed if the child process reports a secret that the parent drew for this
program. The program cannot read the secret by ordinary means, and nothing that the program prints or writes counts.
Tests are compared strictly: an object whose class the program wrote never equals plain data.

**The sandbox stops accidents, not attacks.** A program can circumvent an audit hook inside its own interpreter, replace
functions that the tests call, and read files that the user may read. ``multiprocessing`` is refused. To run code of
untrusted models, run the whole benchmark in a container or a virtual machine. The page ``docs/executing_code.md``
lists the limits, and what remains open.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

START = 60.0  # seconds until the interpreter of a program must have started
_GUARD = Path(__file__).with_name("sandbox_guard.py")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a program.

    Attributes:
        seconds: wall-clock time after the start of the interpreter.
        memory: address space in bytes.
        file: largest file in bytes.
        files: open files.
        entries: new files and folders.

    Examples:
        >>> Limits(seconds=2).memory == 2**30
        True
    """

    seconds: float = 10.0
    memory: int = 1 << 30
    file: int = 1 << 20
    files: int = 64
    entries: int = 256


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of a program.

    Attributes:
        passed: whether the program ran to its end.
        reason: why the program failed, in one line; empty if it passed.

    Examples:
        >>> Outcome(passed=False, reason="ValueError: wrong").passed
        False
    """

    passed: bool
    reason: str = ""


@functools.cache
def isolation() -> str:
    """Return how programs are isolated: ``namespace`` (no network exists) or ``guard`` (an audit hook refuses it)."""
    try:
        result = subprocess.run([*_UNSHARE, "true"], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "guard"
    return "namespace" if result.returncode == 0 else "guard"


def execute(program: str, limits: Limits | None = None, *, tests: str | None = None) -> Outcome:
    """Run a program, then its tests, and return the outcome.

    Args:
        program: Python source. The program passes if it and its tests run to their end. An exception, an exit or a
            limit fails it.
        limits: limits of the program; default: `Limits()`.
        tests: Python source that runs after the program and uses its names. Comparisons in the tests are strict: an
            object whose class the program wrote equals no plain data. Default: none; then the assertions at the top
            level of the program are its tests, and only objects that equal everything fail them.

    Examples:
        >>> execute("assert 1 + 1 == 2").passed
        True
        >>> execute("assert 1 + 1 == 3, 'wrong'").reason
        'AssertionError: wrong'
        >>> execute("def double(x): return x + x", tests="assert double(2) == 4").passed
        True
    """
    limits = limits or Limits()
    folder = Path(tempfile.mkdtemp(prefix="logitkit-"))
    try:
        for name, source in (("program.py", program), ("tests.py", tests)):
            if source is not None:
                (folder / name).write_text(source, encoding="utf-8", errors="surrogatepass")
        return _run(folder, limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, limits: Limits) -> Outcome:
    """Start the process, read its report until the deadline, and kill its process group."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    secret = secrets.token_hex(16).encode()
    source, sink = os.pipe()
    try:
        child = subprocess.Popen(
            _command(folder, limits, sink),
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[sink],
        )
    except BaseException:
        os.close(source)
        raise
    finally:
        os.close(sink)
    try:
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
            pipe.write(secret)
        report, late = _report(source, limits.seconds)
        if not late:  # the exit status is the program's own, not that of the kill below
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=limits.seconds)
    finally:
        os.close(source)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return outcome_of(report, secret.decode(), child.returncode, late=late, seconds=limits.seconds)


def _command(folder: Path, limits: Limits, sink: int) -> list[str]:
    """Return the command of the child process. Its CPU limit lies above the deadline, which the parent keeps."""
    cpu = math.ceil(limits.seconds) + math.ceil(START)
    numbers = [limits.entries, sink, cpu, limits.memory, limits.file, limits.files, 0]
    command = [sys.executable, "-I", "-B", str(_GUARD), str(folder), *map(str, numbers)]
    if isolation() != "namespace":
        return command
    # In a namespace the limit of processes counts the threads of the program only.
    return [*_UNSHARE, *command, "128"]


def _report(source: int, seconds: float) -> tuple[list[str], bool]:
    """Return the lines that the child process wrote, and whether the deadline passed before the process ended.

    The time counts from the line ``ready``, which the child writes before the program starts.
    """
    content, deadline, ready = b"", time.monotonic() + START, False
    while select.select([source], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(source, 4096)
        if not part:
            return content.decode(errors="replace").splitlines(), False
        content = (content + part)[:65536]
        if not ready and b"ready\n" in content:
            ready, deadline = True, time.monotonic() + seconds
    return [], True


def outcome_of(report: list[str], secret: str, status: int, *, late: bool, seconds: float) -> Outcome:
    """Return the outcome that a report and an exit status mean."""
    if status == 0 and f"passed {secret}" in report and not late:
        return Outcome(passed=True)
    failed = [line.removeprefix("failed ") for line in report if line.startswith("failed ")]
    # The system kills a program at its limit of processor time, which several threads can reach before the deadline.
    if late or (not failed and abs(status) % 128 in (signal.SIGKILL, signal.SIGXCPU)):
        return Outcome(passed=False, reason=f"not finished after {seconds:g} s")
    return Outcome(passed=False, reason=(failed[-1] if failed else f"exit status {status}")[:200])


_UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
