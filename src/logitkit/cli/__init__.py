"""The command line: one module a command, assembled in `logitkit.cli.main`."""

from logitkit.cli.main import app

__all__ = ["app"]
