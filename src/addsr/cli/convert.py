"""addsr convert: published checkpoints -> one folder of safetensors with a model card and hashes."""

from pathlib import Path
from typing import Annotated

import typer

from addsr.cli.failure import failing_cleanly
from addsr.cli.model_options import (
    BaseOption,
    CatalogueOption,
    DapeOption,
    DebugOption,
    KindOption,
    LoraOption,
    RamOption,
    beside,
)


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Folder, or cached hub id, with unet/ and controlnet/, or, with --lora, Stable Diffusion's folder.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Folder to make.")],
    kind: KindOption = None,
    base: BaseOption = None,
    ram: RamOption = None,
    dape: DapeOption = None,
    catalogue: CatalogueOption = None,
    lora: LoraOption = None,
    precision: Annotated[
        str, typer.Option("--precision", help="keep, fp32, bf16 or fp16: type of the weights.")
    ] = "keep",
    debug: DebugOption = False,
) -> None:
    """Check the files of a published model and write them as one folder. Pickles are read without running code."""
    if precision not in ("keep", "fp32", "bf16", "fp16"):
        raise typer.BadParameter(f"{precision!r} is not one of keep, fp32, bf16, fp16", param_hint="--precision")
    with failing_cleanly(debug):
        from addsr.checkpoints.published import locate
        from addsr.convert import convert_model
        from addsr.errors import ModelError
        from addsr.loading import find_model

        parts = beside(kind, base, ram, dape, catalogue, lora)
        files = locate(find_model(source, parts), parts, source)
        try:
            written = convert_model(files, out, precision)
        except ModelError as error:
            for line in error.details:
                typer.echo(line)
            raise
    typer.echo(f"{out}: {len(written)} files, {sum(written.values()) / 1e9:.2f} GB", err=True)
