"""addsr tag: what a published model recognises in photos."""

import json
from pathlib import Path
from typing import Annotated

import typer

from addsr.cli.failure import failing_cleanly
from addsr.cli.model_options import (
    BaseOption,
    CatalogueOption,
    DapeOption,
    DebugOption,
    DeviceOption,
    KindOption,
    PrecisionOption,
    RamOption,
    beside,
)


def tag(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Pictures.")],
    model: Annotated[str, typer.Option("--model", help="Folder of a published model, or a converted one.")],
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    kind: KindOption = None,
    base: BaseOption = None,
    ram: RamOption = None,
    dape: DapeOption = None,
    catalogue: CatalogueOption = None,
    write: Annotated[
        bool,
        typer.Option("--write", help="Write them to NAME.txt beside NAME.jpg too: captions, as training reads them."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a photo.")] = False,
    debug: DebugOption = False,
) -> None:
    """Print the tags that the model recognises and would put before your prompt."""
    with failing_cleanly(debug):
        from addsr.data.captions import write_caption
        from addsr.errors import AddSRError
        from addsr.image.read import read_picture
        from addsr.image.transparency import fill_clear
        from addsr.loading import load_tagger

        tagger = load_tagger(model, device, precision, beside(kind, base, ram, dape, catalogue))
        failed = False
        for photo in photos:
            try:
                picture = read_picture(photo)
                pixels = picture.pixels if picture.alpha is None else fill_clear(picture.pixels, picture.alpha)
                tags = tagger.tags(pixels)
                if write:
                    write_caption(photo, ", ".join(tags))
            except AddSRError as error:
                typer.echo(f"error: {error}", err=True)
                failed = True
                continue
            if as_json:
                typer.echo(json.dumps({"input": str(photo), "tags": tags}))
            else:
                typer.echo((f"{photo}: " if len(photos) > 1 else "") + ", ".join(tags))
        if failed:
            raise typer.Exit(1)
