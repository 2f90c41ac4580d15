"""``logitkit bench RUN.yaml``: carry out a run of the benchmark and report it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from logitkit.cli import options
from logitkit.cli.bench_report import data_folder, require_statistics, write_report
from logitkit.cli.inputs import check_folder
from logitkit.cli.interrupts import continued_from
from logitkit.cli.json_output import divert
from logitkit.cli.rendering import print_line
from logitkit.errors import RunError, UnknownNameError
from logitkit.execution import engine_named
from logitkit.progress import progress_bar
from logitkit.registry.chain import Chain

if TYPE_CHECKING:
    from logitkit.bench.config.overrides import Overrides
    from logitkit.bench.config.run import Run

EXAMPLES = (
    'logitkit bench --task cut_sentences --chain "byte_boundary()"',
    "logitkit bench run.yaml",
    "logitkit bench run.yaml --task lambada --samples 2",
    'logitkit bench --task gsm8k --samples 20 --chain "cfg(1.5)"',
)


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The options that describe a run, or change that of a run file; None or False means that an option is absent."""

    model: list[str] | None
    chain: list[str] | None
    task: list[str] | None
    samples: int | None
    split: str | None
    seed: list[int] | None
    sampling: bool
    repeats: int | None
    max_new_tokens: int | None
    batch: int | None
    cost: int | None
    data: Path | None

    @property
    def present(self) -> bool:
        """Whether an option was given."""
        return any(getattr(self, field.name) not in (None, False) for field in fields(self))

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of every task."""
        names = ("samples", "split", "repeats", "max_new_tokens", "batch")
        settings: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name)}
        if self.sampling:
            settings["sampling"] = True
        if self.data is not None:
            settings["data"] = str(self.data.absolute())
        return settings

    def as_run_data(self) -> dict[str, Any]:
        """Return the data that a run file with the same meaning holds."""
        chains: dict[str, str] = {"plain": ""}
        for text in self.chain or []:
            name, equals, chain = text.partition("=")
            named = bool(equals) and name.replace("-", "_").isidentifier()
            chains[name if named else text] = chain if named else text
        data: dict[str, Any] = {"models": self.model or ["smollm2-135m"], "chains": chains, "tasks": self.task or []}
        data["defaults"] = self.settings
        if self.seed:
            data["seeds"] = self.seed
        if self.cost:
            data["cost"] = {"rounds": self.cost}
        return data

    def as_overrides(self) -> Overrides:
        """Return what the options change in a run file: models, chains and tasks are chosen by their names there."""
        from logitkit.bench.config.overrides import Overrides

        chosen = {"models": self.model, "chains": self.chain, "tasks": self.task}
        return Overrides(
            chosen={section: names for section, names in chosen.items() if names},
            settings=self.settings,
            seeds=self.seed or [],
            rounds=self.cost,
        )


# Over 40 lines: each option of the command is a parameter.
def run(
    file: Annotated[
        Path | None,
        typer.Argument(help="A run file, *.yaml. Options beside it change the run. Without it, they describe the run."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A known model name, a folder, or a hub id; of a run file, a name in it. Repeatable."),
    ] = None,
    chain: Annotated[
        list[str] | None,
        typer.Option(
            help="A chain, a .yaml or .json file that holds one, or NAME=CHAIN; of a run file, a name in it. "
            "Repeatable. The baseline, plain decoding, is always measured as well."
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="A task, see `logitkit bench tasks`; of a run file, a name in it. Repeatable."),
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Number of items of each task, from the first.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Use the items of one split of each task: development or held_out.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The folder with the data of the tasks (else LOGITKIT_DATA), or a data file for all tasks."),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Random seed of the sampling; repeatable.")] = None,
    sampling: Annotated[
        bool, typer.Option("--sampling", help="Sample tokens instead of taking the most probable one.")
    ] = False,
    repeats: Annotated[int | None, typer.Option(min=1, help="Number of answers per item; needs --sampling.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, max=options.MOST_TOKENS, help="Maximum number of new tokens.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Number of items decoded together.")] = None,
    cost: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Number of paired rounds that measure cost.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of results. An interrupted run continues there.")
    ] = None,
    engine: options.Engine = "local",
    without_cost: Annotated[
        bool,
        typer.Option("--without-cost", help="Do not measure cost now. Timings need a machine with no other load."),
    ] = False,
    allow_code_execution: Annotated[
        bool,
        typer.Option("--allow-code-execution", help="Let tasks execute model-written code in a restricted process."),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", callback=divert, help="Print the summary as JSON; the reports are written as well."),
    ] = False,
) -> None:
    """Run every task with every chain, model and seed. The same command continues an interrupted run."""
    require_statistics("bench")
    chosen = engine_named(engine, "bench")
    from logitkit.bench.config import runfile

    flags = RunFlags(
        model=model,
        chain=chain,
        task=task,
        samples=samples,
        split=split,
        seed=seed,
        sampling=sampling,
        repeats=repeats,
        max_new_tokens=max_new_tokens,
        batch=batch,
        cost=cost,
        data=data if data is not None and not data.is_dir() else None,
    )
    with data_folder("bench", data):
        if file is None:
            plan = runfile.from_data(flags.as_run_data(), allow_code_execution=allow_code_execution)
            out = out or Path("bench-results") / plan.hash
        elif not file.is_file():
            raise UnknownNameError("run file or command", str(file), ["choose", "power", "report", "speed", "tasks"])
        else:
            plan = runfile.read(file, allow_code_execution=allow_code_execution, overrides=flags.as_overrides())
            # A changed run has a folder of its own: its report does not replace that of the whole run.
            out = out or Path("bench-results") / (f"{file.stem}-{plan.hash}" if flags.present else file.stem)
        check_folder("bench", "--out", out)
        for entry in plan.chains.values():
            Chain(entry.chain).require_packages()
        source = None if flags.present else file
        _carry_out(plan, out, chosen, engine, with_cost=not without_cost, as_json=as_json, source=source)
        if plan.cost is None:
            print_line("the cost was not measured; --cost 5 measures it in 5 paired rounds", stderr=True)


def _carry_out(
    run: Run, out: Path, engine: Any, engine_name: str, *, with_cost: bool, as_json: bool, source: Path | None
) -> None:
    """Run the units without records, measure missing costs, then write the report."""
    from logitkit.bench.config import preflight
    from logitkit.bench.execution.engine import carry_out, missing
    from logitkit.bench.execution.manifest import environment
    from logitkit.bench.execution.store import Store
    from logitkit.bench.execution.unit import plan
    from logitkit.bench.report.wording import agreeing, counted
    from logitkit.bench.speed import cost

    if overlong := preflight.overlong_samples(run):
        raise RunError("bench", overlong)
    with Store(out) as store:
        units, planned = missing(run, store), plan(run)
        rounds = cost.missing(run, store) if with_cost else []
        done = f"{len(planned) - len(units)} of {counted(len(planned), 'unit')} {agreeing(len(planned), 'is')} complete"
        print_line(f"{out}: {done}", stderr=True)
        if units or rounds:
            store.begin(run, environment(engine_name, executes=run.allow_code_execution), source)
        with continued_from(out):
            with progress_bar("bench", total=len(units), piped=True) as unit_bar:

                def advance(unit: Any) -> None:
                    unit_bar.update(description=f"{unit.model} · {unit.chain} · {unit.task}")
                    unit_bar.advance()

                carry_out(run, store, engine=engine, advance=advance)
            if rounds:
                with progress_bar("cost", total=len(rounds), piped=True) as cost_bar:
                    cost.carry_out(run, store, advance=lambda _: cost_bar.advance())
        write_report(run, store, "", as_json=as_json)
