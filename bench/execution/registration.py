"""Registration of a run: a copy of its run file, made before the first answer, and what changed since.

The folder of results keeps ``registered.yaml``, the run file as it was, and ``registered.json``: the time, the hash of
the copy, and the run as data. Neither is ever written again. A registration proves nothing to others by itself; whoever
wants that publishes the hash, which every report prints.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from logitkit.bench.config.run import HypothesisEntry, Run
from logitkit.errors import FileFormatError
from logitkit.files import parse_json, read_bytes, replace_file

COPY, FACTS = "registered.yaml", "registered.json"
NO_ANSWER_DEPENDS = {"folder", "allow_code_execution", "cost"}
LONGEST = 60  # characters of a value in a list of changes


@dataclass(frozen=True, kw_only=True)
class Registration:
    """The registration of the results of a folder, seen from a run.

    Attributes:
        time: when the run file was copied, in UTC.
        digest: SHA-256 of the copy, 64 hex digits.
        records: answers that existed before; a registration should have none.
        run: the registered run as data.
        changes: what differs in the run of today, one text for each setting; also a copy that was changed.

    Examples:
        >>> Registration(time="2026-11-27T09:00:00+00:00", digest="0" * 64, records=0, run={}, changes=[]).in_time
        True
    """

    time: str
    digest: str
    records: int
    run: Mapping[str, Any]
    changes: list[str]

    @property
    def in_time(self) -> bool:
        """Whether no answer existed before the registration."""
        return self.records == 0

    def holds(self, hypothesis: HypothesisEntry, run: Run) -> bool:
        """Return whether a hypothesis was registered in time, with the same chains, task, models and seeds.

        A hypothesis about the baseline was one about the chain that was the baseline then.
        """
        now, then = settings(run), self.run
        baseline = then.get("baseline") or next(iter(then.get("chains") or [""]))
        chain, against = hypothesis.chain, hypothesis.against or run.compared_with
        places = [("chains", chain), ("chains", against), ("tasks", hypothesis.task)]
        same = all(_part(now, *place) == _part(then, *place) for place in places)
        whole = all(now.get(name) == then.get(name) for name in ("models", "resources", "seeds", "tuned"))
        whole = whole and against == (hypothesis.against or baseline)
        entry = hypothesis.model_dump(mode="json", exclude_defaults=True)
        return self.in_time and same and whole and entry in (then.get("hypotheses") or [])


def settings(run: Run) -> dict[str, Any]:
    """Return the settings of a run on which an answer or a comparison depends, without those at their defaults."""
    data: dict[str, Any] = run.model_dump(mode="json", exclude_defaults=True, exclude=NO_ANSWER_DEPENDS)
    return data


def register(folder: Path, run: Run, source: Path | None, records: int) -> None:
    """Copy the run file into the folder of results, unless a run is registered there already.

    Args:
        folder: an existing folder.
        run: the run.
        source: its run file; None for a run that options describe, which is then written as a run file.
        records: number of answers that the folder holds already.

    Examples:
        >>> import tempfile
        >>> from logitkit.bench.config import example_run
        >>> folder = Path(tempfile.mkdtemp())
        >>> run = example_run(folder)
        >>> register(folder, run, None, 0)
        >>> registration(folder, run).changes
        []
    """
    if (folder / FACTS).exists():
        return
    content = source.read_bytes() if source else yaml.safe_dump(settings(run), sort_keys=False).encode()
    facts = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "sha256": hashlib.sha256(content).hexdigest(),
        "records": records,
        "run": settings(run),
    }
    with replace_file(folder / COPY) as temporary:
        temporary.write_bytes(content)
    with replace_file(folder / FACTS) as temporary:
        temporary.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def registration(folder: Path, run: Run) -> Registration | None:
    """Return the registration of a folder of results, None if it has none.

    Raises:
        FileFormatError: the file of facts is damaged.
    """
    path = folder / FACTS
    if not path.exists():
        return None
    try:
        facts = parse_json(read_bytes(path))
        found: dict[str, Any] = {
            "time": str(facts["time"]),
            "digest": str(facts["sha256"]),
            "records": int(facts["records"]),
        }
        then = dict(facts["run"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FileFormatError(
            f"{path} must be a registration of logitkit bench, got {error}; restore the file"
        ) from error
    changes = list(_changes(then, settings(run), ""))
    copy = folder / COPY
    if not copy.is_file() or hashlib.sha256(copy.read_bytes()).hexdigest() != found["digest"]:
        changes.insert(0, f"{COPY}: not the file that was registered")
    return Registration(**found, run=then, changes=changes)


def _part(data: Mapping[str, Any], section: str, name: str) -> Any:
    """Return an entry of a run as data; None if there is none."""
    return (data.get(section) or {}).get(name)


def _changes(before: Any, after: Any, place: str) -> list[str]:
    """Return a text for each setting that differs, with its place, such as ``tasks.words.samples: 9, now 12``."""
    if before == after:
        return []
    if all(isinstance(value, list) and value and isinstance(value[0], Mapping) for value in (before, after)):
        before, after = ({str(number): entry for number, entry in enumerate(each, 1)} for each in (before, after))
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = list(dict.fromkeys([*before, *after]))
        parts = [_changes(before.get(name), after.get(name), f"{place}.{name}".lstrip(".")) for name in names]
        return [change for part in parts for change in part]
    if before is None:
        return [f"{place}: added, {_short(after)}"]
    return [f"{place}: removed" if after is None else f"{place}: {_short(before)}, now {_short(after)}"]


def _short(value: Any) -> str:
    """Return a value as JSON of limited length."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
