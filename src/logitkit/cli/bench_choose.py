"""``logitkit bench choose``: choose one setting of each strategy, and write the run that judges them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from logitkit.cli.bench_report import data_folder, finished_run, require_statistics
from logitkit.cli.rendering import print_line, print_table
from logitkit.errors import ParameterError
from logitkit.files import replace_file
from logitkit.tables import FittedTable

EXAMPLES = ("logitkit bench choose tune.yaml final.yaml --metric loss",)


def choose(
    file: Annotated[Path, typer.Argument(help="The run file of a finished run on the development split.")],
    new: Annotated[Path, typer.Argument(help="The run file to write, in the same folder.")],
    metric: Annotated[
        str | None, typer.Option(help="The metric that decides; default: the main one of each task.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results of FILE.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="The folder with the data of the tasks (else LOGITKIT_DATA).")
    ] = None,
) -> None:
    """Choose the best setting of each strategy by the development split, and write a run of the held-out split."""
    require_statistics("bench choose")
    from logitkit.bench.report.selection import chosen_settings, held_out_run
    from logitkit.bench.report.summary import summarise

    if new.exists():
        raise ParameterError("bench choose", "NEW", "a file that does not exist yet", str(new))
    if new.suffix != ".yaml" or new.parent.resolve() != file.parent.resolve():
        rule = "a file *.yaml in the folder of FILE, because paths in it start there"
        raise ParameterError("bench choose", "NEW", rule, str(new))
    with data_folder("bench choose", data):
        run, store = finished_run("bench choose", file, out)
        summary = summarise(run, store)
        chosen, content = chosen_settings(summary, metric), held_out_run(summary, metric)
    heading = f"# Settings chosen on the development split by: logitkit bench choose {file.name} {new.name}\n"
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    with replace_file(new) as temporary:
        temporary.write_text(heading + text, encoding="utf-8")
    table = FittedTable("strategy", "settings tried", "chosen", "chain", numbers=["settings tried"])
    for strategy, chains in run.strategies().items():
        name = chosen[strategy]
        table.add_row(strategy, str(len(chains)), name, str(run.chains[name].chain))
    print_table(table)
    print_line(str(new), stderr=True)
