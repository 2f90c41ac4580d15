"""Run a program that a model wrote, in a restricted process of its own.

The process has limits on processor time, memory, size of files and open files, a deadline, a temporary folder and an
empty environment, and cannot start further processes. Where the system allows it (Linux, ``unshare``), it has a
network namespace without interfaces and cannot see other processes. On all systems an audit hook refuses sockets,
processes, foreign libraries, and changes outside the folder.

**The sandbox stops accidents, not attacks.** A program can circumvent an audit hook inside its own interpreter. To run
code of untrusted models, run the whole benchmark in a container or a virtual machine.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PASSED = "logitkit: passed"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a program.

    Attributes:
        seconds: wall-clock time, and processor time.
        memory: address space in bytes.
        file: largest file in bytes.
        files: open files.

    Examples:
        >>> Limits(seconds=2).memory == 2**30
        True
    """

    seconds: float = 10.0
    memory: int = 1 << 30
    file: int = 1 << 20
    files: int = 64


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


def execute(program: str, limits: Limits | None = None) -> Outcome:
    """Run a program and return its outcome.

    Args:
        program: Python source. The program passes if it runs to its end. An exception, an exit or a limit fails it.
        limits: limits of the program; default: `Limits()`.

    Examples:
        >>> execute("assert 1 + 1 == 2").passed
        True
        >>> execute("assert 1 + 1 == 3, 'wrong'").reason
        'AssertionError: wrong'
    """
    limits = limits or Limits()
    folder = Path(tempfile.mkdtemp(prefix="logitkit-"))
    try:
        (folder / "program.py").write_text(program, encoding="utf-8", errors="surrogatepass")
        (folder / "guard.py").write_text(_GUARD, encoding="utf-8")
        numbers = [str(value) for value in (max(1, round(limits.seconds)), limits.memory, limits.file, limits.files)]
        command = [sys.executable, "-I", "-B", "guard.py", str(folder), *numbers]
        return _run([*_UNSHARE, *command] if isolation() == "namespace" else command, folder, limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: list[str], folder: Path, limits: Limits) -> Outcome:
    """Start the process, and kill its process group at the deadline."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
    environment |= {"OMP_NUM_THREADS": "1"}
    with (folder / "output").open("wb+") as output:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            child.wait(timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            return Outcome(passed=False, reason=f"not finished after {limits.seconds:g} s")
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        output.seek(max(0, output.seek(0, 2) - 4096))
        lines = output.read().decode(errors="replace").strip().splitlines() or [""]
    if child.returncode == 0 and lines[-1] == PASSED:
        return Outcome(passed=True)
    return Outcome(passed=False, reason=(lines[-1] if lines[-1] else f"exit status {child.returncode}")[:200])


_UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]

# Runs in the child process, before the program. Its last line of output is the outcome, so the output of the program
# itself is discarded.
_GUARD = (
    '''
import os, resource, sys

folder, seconds, memory, file, files = sys.argv[1], *map(int, sys.argv[2:])
source = open("program.py", encoding="utf-8", errors="surrogatepass").read()
code = None
report_to = os.dup(1)
sink = os.open(os.devnull, os.O_WRONLY)
os.dup2(sink, 1), os.dup2(sink, 2)
for resource_, limit in (
    (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, file),
    (resource.RLIMIT_NOFILE, files), (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(resource_, (limit, limit))

def report(text, status, write=os.write, leave=os._exit):
    write(report_to, (text.replace("\\n", " ")[:500] + "\\n").encode("utf-8", "replace"))
    leave(status)

refused = ("socket.", "subprocess.", "ctypes.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn",
           "os.kill", "signal.pthread_kill", "pty.", "ftplib.", "http.", "smtplib.", "urllib.Request", "resource.")
changes = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink",
           "os.truncate", "os.utime", "shutil.")
inside = os.path.realpath(folder) + os.sep

def guard(event, args, refused=refused, changes=changes, inside=inside, real=os.path.realpath, path=os.fsdecode):
    if event.startswith(refused):
        raise PermissionError(f"logitkit: {event} is not allowed here")
    writes = event == "open" and (
        (isinstance(args[1], str) and any(letter in args[1] for letter in "wax+"))
        or (isinstance(args[2], int) and args[2] & 0o1103)
    )
    if writes or event.startswith(changes):
        for target in args:
            if isinstance(target, (str, bytes)) and (target is args[0] or event.startswith(("os.rename", "os.link"))):
                if not real(path(target)).startswith(inside):
                    raise PermissionError(f"logitkit: {event} outside the folder is not allowed here")

sys.addaudithook(guard)
sys.argv[:] = ["program.py"]
try:
    exec(compile(source, "program.py", "exec"), {"__name__": "__main__"})
except BaseException as error:
    report(f"{type(error).__name__}: {error}", 1)
report("'''
    + PASSED
    + """", 0)
"""
)
