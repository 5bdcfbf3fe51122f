"""addsr download: the only command that goes online."""

from pathlib import Path
from typing import Annotated

import typer

from addsr.cli.failure import failing_cleanly
from addsr.cli.model_options import CatalogueOption, DebugOption


def download(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", show_default=False)] = None,
    to: Annotated[Path | None, typer.Option(help="Folder; default: the hub cache, where models are found.")] = None,
    catalogue: CatalogueOption = None,
    show: Annotated[bool, typer.Option("--list", help="List what there is and exit.")] = False,
    debug: DebugOption = False,
) -> None:
    """Fetch published weights from the Hugging Face hub, resuming and verifying."""
    with failing_cleanly(debug):
        from addsr.checkpoints.catalogue import read_catalogue

        entries = read_catalogue(catalogue)
        if show:
            for name, entry in entries.items():
                where = ", ".join(entry.repositories) or "not on the hub"
                typer.echo(f"{name}: {entry.about} [{entry.licence}; {where}]")
            return
        if not names:
            raise typer.BadParameter("give one or more (--list shows them)", param_hint="NAME")
        from addsr.checkpoints.download import fetch

        for name in names:
            folder = fetch(name, entries, to)
            typer.echo(f"{name}: {folder}")
