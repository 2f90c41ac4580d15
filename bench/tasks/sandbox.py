"""Run a program that a model wrote, in a process of its own with little to break.

Limits: processor time, memory, size of files, open files, no further processes, a temporary folder, a deadline, an
empty environment. Where the system lets it (Linux, ``unshare``), the process has a network namespace of its own, with
no way out, and cannot see other processes. Everywhere, an audit hook refuses sockets, processes, foreign libraries,
and writing outside the folder.

**This keeps accidents in, not enemies.** An audit hook inside the interpreter can be got round. Whoever runs code of
models they do not trust should run the whole benchmark in a container or a virtual machine.
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
    """What a program may use: seconds of the clock and of a processor, bytes of memory and of a file, open files."""

    seconds: float = 10.0
    memory: int = 1 << 30
    file: int = 1 << 20
    files: int = 64


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a program: whether it came to its end, and why not, in a few words."""

    passed: bool
    why: str = ""


@functools.cache
def isolation() -> str:
    """How the network is kept away: ``namespace`` (it is not there) or ``guard`` (the interpreter refuses)."""
    try:
        done = subprocess.run([*_UNSHARE, "true"], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "guard"
    return "namespace" if done.returncode == 0 else "guard"


def execute(program: str, limits: Limits | None = None) -> Outcome:
    """Run a program to its end.

    Args:
        program: Python source. It passes if it comes to its end; an exception, an exit or a limit fails it.
        limits: what it may use.
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
    """Start the process, and end its whole group at the deadline."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
    environment |= {"OMP_NUM_THREADS": "1"}
    with (folder / "said").open("wb+") as said:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            child.wait(timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            return Outcome(passed=False, why=f"not done after {limits.seconds:g} s")
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        said.seek(max(0, said.seek(0, 2) - 4096))
        lines = said.read().decode(errors="replace").strip().splitlines() or [""]
    if child.returncode == 0 and lines[-1] == PASSED:
        return Outcome(passed=True)
    return Outcome(passed=False, why=(lines[-1] if lines[-1] else f"exit status {child.returncode}")[:200])


_UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]

# Runs in the child, before the program. What it says last is what counts, so the program's own output is discarded.
_GUARD = (
    '''
import os, resource, sys

folder, seconds, memory, file, files = sys.argv[1], *map(int, sys.argv[2:])
source = open("program.py", encoding="utf-8", errors="surrogatepass").read()
code = None
said = os.dup(1)
nothing = os.open(os.devnull, os.O_WRONLY)
os.dup2(nothing, 1), os.dup2(nothing, 2)
for what, limit in (
    (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, file),
    (resource.RLIMIT_NOFILE, files), (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(what, (limit, limit))

def tell(text, status, write=os.write, leave=os._exit):
    write(said, (text.replace("\\n", " ")[:500] + "\\n").encode("utf-8", "replace"))
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
    tell(f"{type(error).__name__}: {error}", 1)
tell("'''
    + PASSED
    + """", 0)
"""
)
