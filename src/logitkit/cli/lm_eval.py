"""``logitkit lm-eval``: the lm-evaluation-harness's own command line, with chains as a model."""

from __future__ import annotations

import typer

from logitkit.errors import ModeError

THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


def lm_eval(context: typer.Context) -> None:
    """Run the lm-evaluation-harness with `--model logitkit`; every argument is the harness's own."""
    try:
        from logitkit.adapters.lm_eval import main
    except ModuleNotFoundError as error:
        if error.name != "lm_eval":
            raise
        raise ModeError("lm-eval: the harness must be installed; pip install 'logitkit[lm-eval]'") from error
    main(context.args)
