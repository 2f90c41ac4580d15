"""``python -m logitkit``: the command line, where the script ``logitkit`` is not on the path."""

from logitkit.cli import app

if __name__ == "__main__":
    app(prog_name="logitkit")
