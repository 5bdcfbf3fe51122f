"""addsr upscale: files and folders in, restored and enlarged pictures out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from addsr.batch import Done, Job
    from addsr.upscaler import RestoreOptions, Upscaler

EXTENSIONS = ("auto", "png", "jpg", "webp", "tif")


def upscale(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Pictures, or folders of pictures.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="OUT", help="A file for one input, else a folder. Default: beside each."
        ),
    ] = None,
    scale: Annotated[float, typer.Option("-s", "--scale", help="Factor, from 1 (restore only).")] = 4.0,
    steps: Annotated[
        int | None, typer.Option("--steps", help="1 to 4. Default: the model's best (compact: 1).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same picture.")] = 0,
    model: Annotated[str, typer.Option("--model", help="A bundled model's name, or a folder.")] = "compact",
    psr_weight: Annotated[
        float | None,
        typer.Option("--psr-weight", help="0 to 1: how far each later step trusts the last one's picture."),
    ] = None,
    tile: Annotated[str, typer.Option("--tile", metavar="auto|N", help="Side of the tiles in output pixels.")] = "auto",
    color_fix: Annotated[
        str | None, typer.Option("--color-fix", help="wavelet, adain or none. Default: the model's.")
    ] = None,
    suffix: Annotated[
        str | None, typer.Option("--suffix", help="Between name and ending. Default: _x4 (the scale).")
    ] = None,
    ext: Annotated[
        str, typer.Option("--ext", help="auto, png, jpg, webp or tif. auto: tif for TIFF inputs, else png.")
    ] = "auto",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="auto, fp32, bf16 or fp16. auto: bf16 where the hardware has it.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads. Default: all.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a picture on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
) -> int:
    """Restore pictures and enlarge them. Nothing is downloaded, and existing files are kept."""
    if suffix is None:
        suffix = f"_x{scale:g}"
    elif not suffix and output is None:
        raise typer.BadParameter(
            "an empty suffix needs -o: the output would be the input itself", param_hint="--suffix"
        )
    if any(c in suffix for c in '/\\:*?"<>|\0'):
        raise typer.BadParameter(f"{suffix!r} has characters that a file name cannot have", param_hint="--suffix")
    if ext not in EXTENSIONS:
        raise typer.BadParameter(f"{ext!r} is not one of {', '.join(EXTENSIONS)}", param_hint="--ext")
    side = None
    if tile != "auto":
        if not tile.isdecimal():
            raise typer.BadParameter(f"{tile!r} is neither 'auto' nor a number of pixels", param_hint="--tile")
        side = int(tile)
    settings = {"scale": scale, "steps": steps, "seed": seed, "psr_weight": psr_weight, "tile": side}
    return _run(
        inputs,
        output,
        {**settings, "color_fix": color_fix},
        model=(model, device, precision),
        naming=(suffix, ext, overwrite),
        threads=threads,
        as_json=as_json,
        debug=debug,
    )


def _run(
    inputs: list[Path],
    output: Path | None,
    settings: dict[str, Any],
    *,
    model: tuple[str, str, str],
    naming: tuple[str, str, bool],
    threads: int | None,
    as_json: bool,
    debug: bool,
) -> int:
    """Plan, load, restore, report; returns the exit code."""
    from rich.console import Console

    from addsr.errors import AddSRError

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        with console.status("starting …"):
            from addsr.batch import plan
            from addsr.loading import find_model
            from addsr.upscaler import RestoreOptions

            options = RestoreOptions(**settings)
            find_model(model[0])  # before any folder is made
            jobs = plan(inputs, output, *naming)
            upscaler = _load(model, threads) if any(job.error is None for job in jobs) else None
        reporting = {"overwrite": naming[2], "as_json": as_json, "debug": debug}
        finished = _restore_all(jobs, upscaler, options, console, **reporting)
    except AddSRError as error:
        _complain(console, error, debug)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted", style="red")
        return 130
    except Exception as error:
        _complain(console, error, debug)
        return 1
    good = [done for done in finished if done.error is None]
    pixels, seconds = sum(d.size[0] * d.size[1] for d in good), sum(d.seconds for d in good)
    failed = f", {len(finished) - len(good)} failed" if len(good) < len(finished) else ""
    pictures = "1 picture" if len(good) == 1 else f"{len(good)} pictures"
    console.print(f"{pictures}{failed}, {pixels / 1e6:.2f} megapixels in {seconds:.2f} s")
    return 1 if failed else 0


def _load(model: tuple[str, str, str], threads: int | None) -> "Upscaler":
    from addsr.runtime.device import set_threads
    from addsr.runtime.quick_start import import_diffusers_without_dynamo

    import_diffusers_without_dynamo()
    from addsr.loading import load

    set_threads(threads)
    return load(*model)


def _restore_all(
    jobs: "list[Job]",
    upscaler: "Upscaler | None",
    options: "RestoreOptions",
    console: "Console",
    *,
    overwrite: bool,
    as_json: bool,
    debug: bool,
) -> "list[Done]":
    """Do the jobs under a progress bar (on a terminal), saying what became of each."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from addsr import __version__
    from addsr.batch import run

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    finished = []
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        pictures = progress.add_task("pictures", total=len(jobs))
        tiles = progress.add_task("tiles", visible=False)

        def on_tile(job: "Job", done: int, total: int) -> None:
            progress.update(tiles, description=job.source.name, completed=done, total=total, visible=total > 1)

        for done in run(jobs, upscaler, options, __version__, overwrite, on_tile):
            finished.append(done)
            progress.advance(pictures)
            if as_json:
                print(json.dumps(_row(done)), flush=True)
            if done.error is not None:
                _complain(console, done.error, debug)
            elif not as_json:
                console.print(f"{done.job.source} -> {done.job.target}", markup=False)
    return finished


def _complain(console: "Console", error: Exception, debug: bool) -> None:
    """One sentence; where the error is none of ours, its kind and first line."""
    from addsr.errors import AddSRError

    text = str(error) if isinstance(error, AddSRError) else f"{type(error).__name__}: {error}".splitlines()[0]
    console.print(f"error: {text}", style="red", markup=False)
    if debug:
        import traceback

        console.print("".join(traceback.format_exception(error)), markup=False)


def _row(done: "Done") -> dict[str, Any]:
    """One picture as --json prints it."""
    row: dict[str, Any] = {"input": str(done.job.source), "status": "ok" if done.error is None else "error"}
    if done.job.target is not None:
        row["output"] = str(done.job.target)
    if done.error is not None:
        return row | {"error": str(done.error)}
    return row | {
        "width": done.size[1],
        "height": done.size[0],
        "seconds": round(done.seconds, 3),
        **(done.made_by or {}),
    }
