"""addsr degrade: make LR/HR folders from sharp photos."""

from pathlib import Path
from typing import Annotated

import typer

from addsr.cli.failure import failing_cleanly
from addsr.cli.given_path import given_path


def degrade(
    data: Annotated[list[Path], typer.Argument(help="Folders or tar shards of sharp photos.", parser=given_path)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for hr/, lr/ and manifest.jsonl.")],
    case: Annotated[
        str,
        typer.Option(
            help="two-order (Real-ESRGAN); mild, as a good camera's photos are; or a case of the paper: bicubic, blur, "
            "noise, mix."
        ),
    ] = "two-order",
    crop: Annotated[int | None, typer.Option(help="Side of a random crop; default: the whole photo.", min=32)] = None,
    count: Annotated[int, typer.Option(help="Pairs made of each photo.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a range, e.g. first.sigma=[0.2,2] (mild: noise_sigma=[1,5]); may be repeated.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Make LR/HR pairs a factor of four apart: hr/, lr/ of the same names, and a manifest."""
    with failing_cleanly(debug):
        from addsr.data.pair_folder import RANGES, write_pairs
        from addsr.data.photos import Photos, left_out_line
        from addsr.training.config import assignment, make_settings, merged

        if changes and case not in RANGES:
            raise typer.BadParameter(f"only {' and '.join(RANGES)} have ranges", param_hint="--set")
        table: dict[str, object] = {}
        for change in changes or []:
            table = merged(table, assignment(change))
        settings = make_settings(RANGES[case], table, "degradation") if case in RANGES else None
        photos = Photos(data, smallest=crop or 32)
        written = write_pairs(photos, out, case=case, settings=settings, crop=crop, count=count, seed=seed)
        for why, names in (("unreadable", photos.unreadable), ("too small", photos.too_small)):
            if names:
                typer.echo(left_out_line(why, names), err=True)
    typer.echo(f"{written} pairs in {out}", err=True)
