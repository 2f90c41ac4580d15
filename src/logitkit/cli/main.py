"""Assembles the command line; each command lives in the module of its name."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer

import logitkit
from logitkit.cli import (
    bench,
    bits_per_byte,
    check,
    compare,
    demo,
    doctor,
    drift,
    inspect,
    label_divergence,
    list_processors,
    lm_eval,
    membership,
    models,
    new_plugin,
    run,
    schema,
    serve,
    show,
    tokenizer,
    train_adadec,
    train_attribute,
    train_ngram,
    train_router,
)
from logitkit.cli.interrupts import STATUS, interrupted_text
from logitkit.cli.options import examples
from logitkit.cli.usage_errors import HELP_IS_SHOWN, UsageError, usage_error_text
from logitkit.errors import (
    DataError,
    DownloadError,
    LogitkitError,
    MissingPackageError,
    PluginError,
    ScoresError,
)
from logitkit.files import written_files

# Errors of commands that were right: the same command may succeed later, on another machine, or with other data.
FAILURES = (DataError, DownloadError, MissingPackageError, PluginError, ScoresError)
NO_PATH = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)  # the command names no such file
FRAMED = 80  # columns that help texts with frames need


class ErrorReportingGroup(typer.core.TyperGroup):
    """A group of commands that prints an error of logitkit or of the system as one line, without a traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Choose help texts without frames for terminals on which frames would cut the names of options."""
        _choose_help(self, "rich" if shutil.get_terminal_size().columns >= FRAMED else None)
        with _usage_errors_in_one_line(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command. A wrong command line ends the program with exit status 2, a failure with exit status 1."""
        if not sys.stderr.isatty():  # bars of loading and downloading are for people; read once, with the library
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        with written_files() as written:
            try:
                with warnings.catch_warnings(), _usage_errors_in_one_line(ctx):
                    warnings.showwarning = _show_warning
                    return super().invoke(ctx)
            except KeyboardInterrupt:
                typer.echo(interrupted_text(ctx.invoked_subcommand or "logitkit", written), err=True)
                raise typer.Exit(STATUS) from None
            except LogitkitError as error:
                _print_error(str(error))
                raise typer.Exit(1 if isinstance(error, FAILURES) else 2) from error
            except OSError as error:
                if error.errno is None or error.errno == errno.EPIPE:  # not of a file, or nobody reads the output
                    raise
                _print_error(_of_the_system(error))
                raise typer.Exit(2 if error.errno in NO_PATH else 1) from error


def _print_error(text: str) -> None:
    """Print an error as one line."""
    typer.secho("error: ", fg=typer.colors.RED, err=True, nl=False)
    typer.echo(text, err=True)


@contextlib.contextmanager
def _usage_errors_in_one_line(ctx: Any) -> Iterator[None]:
    """Print an error of the command line that the body raises, and end the program with exit status 2."""
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == HELP_IS_SHOWN:
            raise
        _print_error(usage_error_text(error, ctx.invoked_subcommand or ""))
        raise typer.Exit(2) from error


def _choose_help(command: Any, mode: str | None) -> None:
    """Set typer's layout of help texts for a command and the commands below it."""
    command.rich_markup_mode = mode
    for child in getattr(command, "commands", {}).values():
        _choose_help(child, mode)


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Print a warning of logitkit as one line for each sentence, and any other as Python does."""
    if not category.__module__.startswith("logitkit"):
        text = warnings.formatwarning(message, category, *place[:2])
        typer.echo(text, err=True, nl=False)
        return
    for line in str(message).split("\n"):
        typer.secho("warning: ", fg=typer.colors.YELLOW, err=True, nl=False)
        typer.echo(line, err=True)


def _of_the_system(error: OSError) -> str:
    """Return an error of the system, such as a full disk or a folder without permission, as one line."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk must have free space, got none; free some, and run the same command again"
    where = (
        f"{error.filename} must be a file or folder that can be used"
        if error.filename
        else "the system must read or write a file"
    )
    return f"{where}, got: {error.strerror or type(error).__name__}"


app = typer.Typer(
    cls=ErrorReportingGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog=examples("logitkit demo", 'logitkit run "Once upon a time" --chain "cfg(1.5) | top_p(0.9)"'),
)


def _print_version(requested: bool) -> None:
    """Print the version and stop, when ``--version`` was given."""
    if requested:
        typer.echo(f"logitkit {logitkit.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Decoding strategies as plugins for Hugging Face generate."""


app.command("demo")(demo.demo)
app.command("run", epilog=examples(*run.EXAMPLES))(run.run)
app.command("inspect", epilog=examples(*inspect.EXAMPLES))(inspect.inspect)
app.command("serve", epilog=examples(*serve.EXAMPLES))(serve.serve)
app.command("list")(list_processors.list_processors)
app.command("show", epilog=examples(*show.EXAMPLES))(show.show)
app.command("schema", epilog=examples(*schema.EXAMPLES))(schema.schema)
app.command("check", epilog=examples(*check.EXAMPLES))(check.check)
app.command("doctor", epilog=examples(*doctor.EXAMPLES))(doctor.doctor)
app.command("new-plugin", epilog=examples(*new_plugin.EXAMPLES))(new_plugin.new_plugin)
app.add_typer(models.app, name="models")
app.add_typer(bench.app, name="bench")
app.command("train-ngram", epilog=examples(*train_ngram.EXAMPLES))(train_ngram.train_ngram)
app.command("label-divergence", epilog=examples(*label_divergence.EXAMPLES))(label_divergence.label_divergence)
app.command("train-router", epilog=examples(*train_router.EXAMPLES))(train_router.train_router)
app.command("train-attribute", epilog=examples(*train_attribute.EXAMPLES))(train_attribute.train_attribute)
app.command("membership", epilog=examples(*membership.EXAMPLES))(membership.membership)
app.command("bits-per-byte", epilog=examples(*bits_per_byte.EXAMPLES))(bits_per_byte.bits_per_byte)
app.add_typer(tokenizer.app, name="tokenizer")
app.command("compare", epilog=examples(*compare.EXAMPLES))(compare.compare)
app.command("train-adadec", epilog=examples(*train_adadec.EXAMPLES))(train_adadec.train_adadec)
app.command("drift", epilog=examples(*drift.EXAMPLES))(drift.drift)
app.command("lm-eval", context_settings=lm_eval.CONTEXT_SETTINGS, add_help_option=False)(lm_eval.lm_eval)
