"""``logitkit bench``: the commands that measure decoding strategies."""

from __future__ import annotations

from typing import Any

import typer

from logitkit.cli import bench_choose, bench_power, bench_report, bench_run, bench_speed, bench_tasks, options


class DefaultRunGroup(typer.core.TyperGroup):
    """A group whose default command is ``run``, so that ``logitkit bench run.yaml`` works."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``run`` before a first argument that is neither a command nor ``--help``."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=DefaultRunGroup,
    help="Measure decoding strategies side by side.\n\n"
    "`logitkit bench RUN.yaml` carries out a run file; `logitkit bench --task TASK --chain CHAIN` describes the run by "
    "options. Both write a report and continue an interrupted run; see `logitkit bench run --help`.",
    no_args_is_help=True,
    epilog=options.examples(*bench_run.EXAMPLES, *bench_report.EXAMPLES, *bench_speed.EXAMPLES),
)
app.command("run", epilog=options.examples(*bench_run.EXAMPLES))(bench_run.run)
app.command("report", epilog=options.examples(*bench_report.EXAMPLES))(bench_report.report)
app.command("choose", epilog=options.examples(*bench_choose.EXAMPLES))(bench_choose.choose)
app.command("power", epilog=options.examples(*bench_power.EXAMPLES))(bench_power.power)
app.command("tasks")(bench_tasks.tasks)
app.command("speed", epilog=options.examples(*bench_speed.EXAMPLES))(bench_speed.speed)
