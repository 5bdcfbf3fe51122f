"""The command line: one file a command; nothing heavy is imported before a command runs."""

import sys
from typing import Annotated, NoReturn

import typer

from addsr import __version__
from addsr.cli import convert, degrade, download, info, profile, tag, train, upscale

app = typer.Typer(
    name="addsr",
    help="Restore degraded photographs and enlarge them with diffusion models in one to four steps.",
    epilog="Exit codes: 0 all done, 1 the command or some pictures failed, 2 wrong usage (of upscale, a model that cannot "
    "be used, too), 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="upscale")(upscale.upscale)
app.command(name="tag")(tag.tag)
app.command(name="convert")(convert.convert)
app.command(name="download")(download.download)
app.command(name="train")(train.train)
app.command(name="degrade")(degrade.degrade)
app.command(name="profile")(profile.profile)
app.command(name="info")(info.info)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"addsr {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Restore degraded photographs and enlarge them with diffusion models in one to four steps."""


def main() -> NoReturn:
    """Run a command and leave with its exit code (see the help above)."""
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        show = getattr(error, "show", None)  # click's own exceptions: wrong usage
        if show is None:
            raise
        show()
        code = getattr(error, "exit_code", 2)
    sys.exit(code)
