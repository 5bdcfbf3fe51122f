"""Options of every command that loads a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from addsr.checkpoints.published import Beside

PANEL = "Published models (AddSR, SeeSR), D³SR's adapters"

ModelOption = Annotated[str, typer.Option("--model", help="A bundled model's name, a folder, or a cached hub id.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        help="auto, fp32, bf16 or fp16. auto: bf16 where the hardware has it, else fp16 on CUDA, else fp32. "
        "On an x86 CPU without it, half precision saves memory alone.",
    ),
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads. Default: all.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")]
KindOption = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help="addsr, seesr or seesr-turbo. Default: what the folder's name says, else addsr.",
        rich_help_panel=PANEL,
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        help="Folder or cached hub id of Stable Diffusion 2(.1)-base (seesr-turbo: of SD-Turbo).",
        rich_help_panel=PANEL,
    ),
]
RamOption = Annotated[Path | None, typer.Option("--ram", help="ram_swin_large_14m.pth.", rich_help_panel=PANEL)]
DapeOption = Annotated[Path | None, typer.Option("--dape", help="DAPE.pth.", rich_help_panel=PANEL)]
CatalogueOption = Annotated[
    Path | None, typer.Option("--catalogue", help="A list of mirrors of your own (TOML).", rich_help_panel=PANEL)
]

LoraOption = Annotated[
    Path | None,
    typer.Option(
        "--lora",
        help="D³SR's adapters (safetensors); --model is then Stable Diffusion 2(.1)-base's folder.",
        rich_help_panel=PANEL,
    ),
]


def beside(
    kind: str | None,
    base: str | None,
    ram: Path | None,
    dape: Path | None,
    catalogue: Path | None,
    lora: Path | None = None,
) -> "Beside":
    """The options as the loader takes them."""
    from addsr.checkpoints.published import Beside

    return Beside(kind, base, ram, dape, catalogue, lora)
