"""The command line."""

from logitkit.cli.main import app

__all__ = ["app"]
