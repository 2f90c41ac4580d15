"""``logitkit lm-eval``: the command line of the lm-evaluation-harness, with chains as a model."""

from __future__ import annotations

import typer

from logitkit.cli.interrupts import STATUS
from logitkit.cli.rendering import print_line
from logitkit.errors import MissingPackageError

# The harness parses every argument, --help included.
CONTEXT_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


def lm_eval(context: typer.Context) -> None:
    """Run the lm-evaluation-harness with `--model logitkit`. All arguments are those of the harness."""
    try:
        from logitkit.adapters.lm_eval import main
    except ModuleNotFoundError as error:
        if error.name != "lm_eval":
            raise
        raise MissingPackageError("lm-eval", "lm-eval", "lm-eval") from error
    try:
        main(context.args)
    except KeyboardInterrupt:  # what the harness keeps depends on its own options
        print_line("lm-eval: interrupted", stderr=True)
        raise typer.Exit(STATUS) from None
