"""Loading a model by known name, folder or hub id, and properties of the default model."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys

import pytest
import torch
from transformers.utils import logging

from fakes import absolute_model, tiny_tokenizer
from logitkit import models
from logitkit.errors import DownloadError, ModelError, UnknownNameError
from logitkit.progress import progress_bar


class TestLoad:
    @pytest.mark.parametrize("name", ["smollm", "./absent", "/absent/folder"])
    def test_unknown_names_and_absent_folders(self, name, model_cache):
        """A name that is neither known, nor a folder, nor a hub id is refused."""
        with pytest.raises(UnknownNameError, match="no model named"):
            models.load(name)

    def test_unreachable_hub_id_lists_the_known_models(self, model_cache):
        """The error for a hub id that cannot be reached lists the known models."""
        with pytest.raises(
            DownloadError, match=r"owner/absent: the Hugging Face hub does not provide this model.*smollm2-135m"
        ):
            models.load("owner/absent")

    def test_folder_without_model(self, tmp_path):
        """A folder without a model is refused."""
        with pytest.raises(ModelError, match="cannot load this folder"):
            models.load(str(tmp_path))

    def test_folder_and_dtype_of_another_model(self, tmp_path):
        """A folder is loaded in float32, or in the dtype of the model ``like``."""
        absolute_model().save_pretrained(tmp_path)
        tiny_tokenizer().save_pretrained(tmp_path)
        first, _ = models.load(str(tmp_path))
        half, tokenizer = models.load(str(tmp_path), like=absolute_model.__wrapped__().to(torch.bfloat16))
        assert (first.dtype, half.dtype) == (torch.float32, torch.bfloat16)
        assert not half.training
        assert tokenizer.decode(tokenizer.encode("ab")) == "ab"


class TestSmollm2:
    def test_digits_and_chat(self, smollm2):
        """The tokenizer of smollm2-135m splits digits, and its chat template is ChatML."""
        _, tokenizer = smollm2
        assert tokenizer.convert_ids_to_tokens(tokenizer.encode("12345")) == list("12345")
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
        )
        assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")

    def test_greedy_decoding_is_sensible(self, smollm2):
        """smollm2-135m answers a simple question and ends with its end token."""
        model, tokenizer = smollm2
        question = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
        inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
        answer = model.generate(**inputs, do_sample=False, max_new_tokens=20)[0, inputs["input_ids"].shape[1] :]
        assert "Paris" in tokenizer.decode(answer)
        assert answer[-1] == tokenizer.eos_token_id


def test_loading_shows_a_bar_on_a_terminal_alone(tiny_checkpoint: str) -> None:
    """In a script whose standard error is a file, nothing is written; the setting of transformers stays as it was."""
    code = (
        "from transformers.utils import logging\nfrom logitkit import models\n"
        f"models.load({tiny_checkpoint!r})\nassert logging.is_progress_bar_enabled()"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_PROGRESS_BARS"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("", "")


def test_no_bar_of_transformers_above_ours(tiny_checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar of `progress_bar` would print every state of another bar as a line; without one, loading shows its bar."""
    switched: list[str] = []
    monkeypatch.setattr(logging, "is_progress_bar_enabled", lambda: True)
    for name in ("disable_progress_bar", "enable_progress_bar"):
        monkeypatch.setattr(logging, name, functools.partial(switched.append, name))
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    models.load(tiny_checkpoint)
    assert switched == []
    with progress_bar("units", total=1):
        models.load(tiny_checkpoint)
    assert switched == ["disable_progress_bar", "enable_progress_bar"]
