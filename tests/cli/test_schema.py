"""``logitkit schema``."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import logitkit_command
from logitkit.registry import chain_schema


def test_it_prints_or_writes_the_schema(tmp_path: Path) -> None:
    """JSON alone on standard output, or a file and a line that names it."""
    printed = logitkit_command("schema")
    assert printed.exit_code == 0 and json.loads(printed.stdout) == chain_schema()
    out = tmp_path / "chain.schema.json"
    written = logitkit_command("schema", "--out", str(out))
    assert written.exit_code == 0 and not written.stdout and out.name in "".join(written.stderr.split())
    assert json.loads(out.read_text()) == chain_schema()
