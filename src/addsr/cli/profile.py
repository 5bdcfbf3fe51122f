"""addsr profile: what models cost, side by side."""

import json
from typing import Annotated

import typer

from addsr.cli.failure import failing_cleanly
from addsr.cli.model_options import DebugOption, ThreadsOption


def profile(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="compact, a folder, addsr, seesr or d3sr (Stable Diffusion 2 size), or a preset such as compact-d3sr.",
        ),
    ],
    size: Annotated[int, typer.Option(help="Side of the result: a multiple of 32 (compact) or 64 pixels.")] = 512,
    steps: Annotated[int | None, typer.Option(help="Default: the model's own.")] = None,
    timed: Annotated[
        bool, typer.Option("--seconds", help="Run and time each stage; addsr, seesr and d3sr with random weights.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where to time: auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="Of weights and activations, for memory and seconds: fp32, bf16, fp16, auto.")
    ] = "fp32",
    threads: ThreadsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a model.")] = False,
    debug: DebugOption = False,
) -> None:
    """Parameters by component, multiply-accumulates and seconds by stage, and peak memory, of one restoration."""
    with failing_cleanly(debug):
        from addsr.evaluation.profile import profile as run
        from addsr.runtime.device import choose_device, set_threads
        from addsr.runtime.memory import keep_freed_memory

        keep_freed_memory()
        set_threads(threads)
        where = str(choose_device(device))
        profiles = [run(model, size, steps, timed=timed, device=where, precision=precision) for model in models]
        if as_json:
            for one in profiles:
                typer.echo(json.dumps(one.row()))
            return
        from rich.console import Console

        from addsr.evaluation.table import table

        Console(soft_wrap=True).print(table(profiles))
