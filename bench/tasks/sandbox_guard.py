"""The child process of the sandbox: restricts itself, runs a program and reports its end.

`logitkit.bench.tasks.sandbox` starts this file as a script. The report of a passing program is a secret that the
parent wrote to the standard input. Only an audit hook holds the secret, and the hook writes it only for the frame of
`main`, after the program and its tests have ended without an exception.
"""

from __future__ import annotations

import builtins
import collections
import functools
import importlib
import itertools
import os
import sys
import types
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_REFUSED = (
    *("socket.", "subprocess.", "ctypes.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.kill"),
    *("signal.pthread_kill", "pty.", "ftplib.", "http.", "smtplib.", "urllib.Request", "resource."),
)
_ALLOWED = ("socket.__new__", "socket.gethostname")  # an event loop opens a pair of sockets; connections are refused
_LIBRARIES_ONLY = ("ctypes.", "sys._current_frames", "gc.get_")
_CHANGES = (
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink"),
    *("os.truncate", "os.utime", "os.setxattr", "os.removexattr"),
)
_NO_FOLDER = ("os.truncate", "os.setxattr", "os.removexattr")  # events without a descriptor of a folder


def main() -> None:
    """Run ``program.py``, and ``tests.py`` if it exists, within the limits of the command line."""
    folder, entries, report = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    limits = [int(value) for value in sys.argv[4:]]
    # Everything that is used after the program has run is a local of this frame, which the program cannot change.
    audit, fail, leave, finished = sys.audit, _failure(report), os._exit, collections.deque
    try:
        _announce(report, sys._getframe())
        steps = [_steps(folder)]
        sys.argv[:] = ["program.py"]
        sys.path.insert(0, folder)
        _restrict(folder, entries, limits)
        os.write(report, b"ready\n")
        finished(steps.pop(), 0)  # no frame holds the steps while they run
    except BaseException as error:
        fail(error)
        leave(1)
    else:
        audit("logitkit.end")
        leave(0)


def _steps(folder: str) -> Iterator[Any]:
    """Return an iterator that runs the program and its tests, one step after the other.

    No frame holds the tests and their names while the program runs, since a program can change what frames hold.
    """
    module = types.ModuleType("__main__")
    namespace = module.__dict__
    namespace["__file__"] = str(Path(folder) / "program.py")
    judge = _comparison_module()
    tests = judge.compiled(Path(folder) / "tests.py", folder, tests=None)
    program = judge.compiled(Path(folder) / "program.py", folder, tests=tests)
    sys.modules["__main__"] = module
    calls: list[functools.partial[Any]] = [functools.partial(exec, program or "", namespace)]
    if tests is not None:
        (Path(folder) / "tests.py").unlink()  # a program could read the answers
        names: dict[str, Any] = {}
        builtins_before = dict(vars(builtins))
        calls += [
            functools.partial(names.update, namespace),
            functools.partial(names.__setitem__, "__builtins__", builtins_before),
            functools.partial(exec, tests, names),
        ]
    return itertools.starmap(functools.partial.__call__, [(call,) for call in calls])


def _comparison_module() -> Any:
    """Import the file beside this one, which no package holds in this process."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    try:
        return importlib.import_module("sandbox_comparison")
    finally:
        del sys.path[0]
        sys.modules.pop("sandbox_comparison", None)


def _announce(report: int, loader: types.FrameType) -> None:
    """Install the hook that writes the secret when ``loader`` itself raises the event ``logitkit.end``."""
    secret, write, frame = os.read(0, 64), os.write, sys._getframe
    sink = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(sink, descriptor)

    def finish(event: str, args: tuple[Any, ...]) -> None:
        if event == "logitkit.end" and frame(1) is loader:
            write(report, b"passed " + secret + b"\n")

    sys.addaudithook(finish)


def _failure(report: int) -> Callable[[BaseException], None]:
    """Return a function that reports an exception."""
    write = os.write

    def fail(error: BaseException) -> None:
        try:
            text = f"{type(error).__name__}: {error}".replace("\n", " ")[:500]
        except BaseException:
            text = "an exception without a text"
        write(report, f"failed {text}\n".encode("utf-8", "replace"))

    return fail


def _restrict(folder: str, entries: int, limits: list[int]) -> None:
    """Set the limits of the process, and install the hook that refuses events."""
    import resource

    names = ("RLIMIT_CPU", "RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_NPROC")
    for name, limit in zip(names, limits, strict=False):
        resource.setrlimit(getattr(resource, name), (limit, limit))
    _replace_unaudited()
    _replace_tracing()
    inside = os.path.realpath(folder) + os.sep
    _guard_databases(inside)
    sys.addaudithook(_hook(inside, entries))


def _replace_unaudited() -> None:
    """Replace functions that change files or start processes without an audit event."""
    opened = os.open

    def refuse(*args: Any, **more: Any) -> None:
        raise PermissionError("logitkit: this function is not allowed here")

    def open_path(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None:
            raise PermissionError("logitkit: open with dir_fd is not allowed here")
        return opened(path, flags, mode)

    import _posixsubprocess

    for module in (os, sys.modules["posix"]):
        for name in ("mkfifo", "mknod", "chroot", "setns", "unshare"):
            if hasattr(module, name):
                setattr(module, name, refuse)
        module.open = open_path  # type: ignore[attr-defined]
    setattr(_posixsubprocess, "fork_exec", refuse)  # noqa: B010 - its type is another


def _replace_tracing() -> None:
    """Refuse functions that are called at every line or call, since they can change what other frames do next."""

    def refuse(function: Any = None, *_: Any) -> None:
        if function is not None:  # debuggers and doctest restore None
            raise PermissionError("logitkit: tracing is not allowed here")

    for name in ("settrace", "setprofile", "_settraceallthreads", "_setprofileallthreads"):
        if hasattr(sys, name):
            setattr(sys, name, refuse)


def _hook(inside: str, entries: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Return the audit hook."""
    called_by_library, change, me = _library_test(), _change_test(inside, entries), os.getpid()

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(_LIBRARIES_ONLY):
            if not called_by_library():
                raise PermissionError(f"logitkit: {event} is not allowed here")
        elif event.startswith(_REFUSED) and event not in _ALLOWED:
            raise PermissionError(f"logitkit: {event} is not allowed here")
        elif event == "import" and args[0] in ("_gdbm", "_dbm"):
            raise ImportError(f"logitkit: {args[0]} writes files without an audit event")  # dbm.dumb is used instead
        elif event == "sqlite3.connect":
            change(event, tuple(filter(None, [_database(args[0])])), True)
        elif event in ("open", "os.listdir", "os.scandir"):
            _read(event, args, me)
            if event == "open" and _writes(args) and not isinstance(args[0], int):
                change(event, args[:1], True)
        elif event.startswith(_CHANGES):
            both = event.startswith(("os.rename", "os.link"))
            if event not in _NO_FOLDER and any(value != -1 for value in args[-2 if both else -1 :]):
                raise PermissionError(f"logitkit: {event} with dir_fd is not allowed here")
            targets = args[1:2] if event == "os.symlink" else args[: 1 + both]
            change(event, targets, event in ("os.mkdir", "os.link", "os.symlink"))

    return hook


def _library_test() -> Callable[[], bool]:
    """Return a function for the hook: whether an installed file, and not the program, raised the current event."""
    real, frame = os.path.realpath, sys._getframe
    libraries = tuple({os.path.realpath(folder) + os.sep for folder in (sys.prefix, sys.base_prefix)} | {"<frozen"})

    def called_by_library() -> bool:
        caller: types.FrameType | None = frame(2)
        while caller and caller.f_code.co_filename.endswith("/ctypes/__init__.py"):
            if caller.f_code.co_name == "<module>":
                return True
            caller = caller.f_back
        file = caller.f_code.co_filename if caller else "<frozen"
        return file.startswith(libraries) or real(file).startswith(libraries)

    return called_by_library


def _place(target: Any) -> str:
    """Return the real path of a path or of a descriptor."""
    return os.path.realpath(f"/proc/self/fd/{target}" if isinstance(target, int) else os.fsdecode(target))


def _change_test(inside: str, entries: int) -> Callable[[str, tuple[Any, ...], bool], None]:
    """Return a function that refuses changes outside the folder, and more new files than allowed."""
    exists = os.path.lexists
    created: set[str] = set()

    def change(event: str, targets: tuple[Any, ...], makes: bool) -> None:
        for target in targets:
            there = _place(target)
            if not there.startswith(inside) and not (event == "open" and there in (inside[:-1], "/dev/null")):
                raise PermissionError(f"logitkit: {event} outside the folder is not allowed here")
            if makes and there not in created and not exists(there):
                created.add(there)
                if len(created) > entries:
                    raise PermissionError(f"logitkit: more than {entries} new files are not allowed here")

    return change


def _writes(args: tuple[Any, ...]) -> bool:
    """Return whether an ``open`` event asks for writing."""
    mode, flags = args[1], args[2]
    return (isinstance(mode, str) and any(letter in mode for letter in "wax+")) or (
        isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    )


def _read(event: str, args: tuple[Any, ...], me: int) -> None:
    """Refuse the folders of other processes under ``/proc``, and the memory of this process."""
    if args[0] is None or isinstance(args[0], int):
        return
    parts = Path(_place(args[0])).parts
    if parts[:2] != ("/", "proc") or len(parts) < 3:
        return
    if (parts[2].isdigit() and parts[2] != str(me)) or parts[-1] == "mem":
        raise PermissionError(f"logitkit: {event} in the folder of another process is not allowed here")


def _database(name: Any) -> str:
    """Return the path of a database; an empty text is a database in memory."""
    text = os.fsdecode(name)
    if text.startswith("file:"):
        text = urllib.parse.unquote(text[5:].partition("?")[0])
        text = "/" + text.lstrip("/") if text.startswith("/") else text
    return "" if text == ":memory:" else text


def _guard_databases(inside: str) -> None:
    """Make every connection refuse to attach databases outside the folder, which has no audit event."""
    try:
        import _sqlite3
    except ImportError:
        return
    connect, attach, real = _sqlite3.connect, _sqlite3.SQLITE_ATTACH, os.path.realpath

    def authorize(action: int, name: str | None, *_: Any) -> int:
        if action != attach or name == "":
            return 0
        file = None if name is None else _database(name)  # a bound parameter has no name here
        return int(file is None or (file != "" and not real(file).startswith(inside)))

    def guarded(*args: Any, **more: Any) -> Any:
        connection = connect(*args, **more)
        connection.set_authorizer(authorize)
        return connection

    _sqlite3.connect = guarded


if __name__ == "__main__":
    main()
