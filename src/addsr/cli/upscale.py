"""addsr upscale: files and folders in, restored and enlarged pictures out."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from addsr.cli.failure import reader_is_gone
from addsr.cli.given_path import given_path
from addsr.cli.model_options import (
    PANEL,
    BaseOption,
    CatalogueOption,
    DapeOption,
    DebugOption,
    DeviceOption,
    KindOption,
    LoraOption,
    ModelOption,
    PrecisionOption,
    RamOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from rich.console import Console

    from addsr.batch import Done
    from addsr.jobs import Job
    from addsr.options import RestoreOptions
    from addsr.upscaler import Upscaler

EXTENSIONS = ("auto", "png", "jpg", "webp", "tif")


def upscale(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Pictures, or folders of pictures.", parser=given_path),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="A file for one input, else a folder. Default: beside each.",
            parser=given_path,
        ),
    ] = None,
    scale: Annotated[float, typer.Option("-s", "--scale", help="Factor, from 1 (restore only).")] = 4.0,
    steps: Annotated[
        int | None, typer.Option("--steps", help="1 to 4 (seesr: to 999, D³SR: 1). Default: the model's (compact: 1).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same picture.")] = 0,
    model: ModelOption = "compact",
    fidelity: Annotated[
        float | None,
        typer.Option("--fidelity", help="0, most detailed, to 1, most faithful. Default: 0.", min=0, max=1),
    ] = None,
    psr_weight: Annotated[
        float | None,
        typer.Option(
            "--psr-weight",
            help="0 to 1: how far each later step trusts the last one's picture. Default: the model's (compact: 0.2).",
        ),
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
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    threads: ThreadsOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")] = False,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Pass over pictures whose output is there: go on with a broken-off run."),
    ] = False,
    recursive: Annotated[
        bool, typer.Option("-r", "--recursive", help="The pictures of subfolders too; OUT gets the same subfolders.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a picture on stdout.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it would take (memory, tiles, seconds), and write nothing.")
    ] = False,
    debug: DebugOption = False,
    prompt: Annotated[str, typer.Option("--prompt", help="Words beside the tags.", rich_help_panel=PANEL)] = "",
    no_tags: Annotated[
        bool, typer.Option("--no-tags", help="Recognise no tags: the prompt alone.", rich_help_panel=PANEL)
    ] = False,
    added_prompt: Annotated[
        str | None, typer.Option("--added-prompt", help="Default: the papers' own.", rich_help_panel=PANEL)
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option("--negative-prompt", help="Default: SeeSR's.", rich_help_panel=PANEL)
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            "--guidance-scale",
            help="1 for none. Default: the model's (seesr: 5.5, others: 1).",
            rich_help_panel=PANEL,
        ),
    ] = None,
    start_point: Annotated[
        str | None,
        typer.Option("--start-point", help="lr or noise. Default: the model's (published: lr).", rich_help_panel=PANEL),
    ] = None,
    compat: Annotated[
        str, typer.Option("--compat", help="paper, or released: as the published code does.", rich_help_panel=PANEL)
    ] = "paper",
    kind: KindOption = None,
    base: BaseOption = None,
    ram: RamOption = None,
    dape: DapeOption = None,
    catalogue: CatalogueOption = None,
    lora: LoraOption = None,
    offload: Annotated[
        bool, typer.Option("--offload", help="Keep on the GPU only what computes.", rich_help_panel=PANEL)
    ] = False,
    compile_networks: Annotated[
        bool, typer.Option("--compile", help="torch.compile: minutes first, then faster.", rich_help_panel=PANEL)
    ] = False,
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
    if overwrite and skip_existing:
        raise typer.BadParameter("outputs are replaced or passed over, not both", param_hint="--skip-existing")
    if ext not in EXTENSIONS:
        raise typer.BadParameter(f"{ext!r} is not one of {', '.join(EXTENSIONS)}", param_hint="--ext")
    side = None
    if tile != "auto":
        if not tile.isdecimal():
            raise typer.BadParameter(f"{tile!r} is neither 'auto' nor a number of pixels", param_hint="--tile")
        side = int(tile)
    settings = {"scale": scale, "steps": steps, "seed": seed, "psr_weight": psr_weight, "tile": side}
    settings["fidelity"] = fidelity
    settings |= {"color_fix": color_fix, "guidance_scale": guidance_scale, "start_point": start_point, "compat": compat}
    words = {"prompt": prompt, "tags": not no_tags, "added_prompt": added_prompt, "negative_prompt": negative_prompt}
    with warnings.catch_warnings():  # which _run says in its own way
        return _run(
            inputs,
            output,
            settings,
            words,
            model=ModelChoice(model, device, precision),
            parts={"kind": kind, "base": base, "ram": ram, "dape": dape, "catalogue": catalogue, "lora": lora},
            loading={"offload": offload, "compile": compile_networks},
            naming=Naming(suffix, ext, overwrite, skip_existing),
            recursive=recursive,
            threads=threads,
            plan_only=plan,
            as_json=as_json,
            debug=debug,
        )


class ModelChoice(NamedTuple):
    """Which model, where, and how."""

    name: str
    device: str
    precision: str


class Naming(NamedTuple):
    """What results are called, and whether they may replace what is there."""

    suffix: str
    ext: str
    overwrite: bool
    skip_existing: bool


def _run(
    inputs: list[Path],
    output: Path | None,
    settings: dict[str, Any],
    words: dict[str, Any],
    *,
    model: ModelChoice,
    parts: dict[str, Any],
    loading: dict[str, bool],
    naming: Naming,
    recursive: bool,
    threads: int | None,
    plan_only: bool,
    as_json: bool,
    debug: bool,
) -> int:
    """Plan, load, restore, report; returns the exit code."""
    from rich.console import Console

    from addsr.errors import AddSRError

    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    warnings.showwarning = lambda message, *_args, **_more: console.print(
        f"warning: {message}", style="yellow", markup=False
    )
    finished: list[Done] = []
    try:
        with console.status("starting …"):
            from addsr.checkpoints.faithful import has_faithful
            from addsr.checkpoints.published import locate
            from addsr.cli.model_options import beside
            from addsr.jobs import plan
            from addsr.loading import find_model
            from addsr.options import RestoreOptions
            from addsr.prompts.options import PromptOptions

            options = RestoreOptions(**settings, words=PromptOptions(**words))
            places = beside(**parts)
            files = locate(find_model(model.name, places), places, model.name)
            options.check(files.sampler, has_faithful(files))  # before any folder is made
            jobs = plan(inputs, output, *naming, recursive=recursive, written=not plan_only)
            upscaler = None
            if any(job.to_do for job in jobs):
                upscaler = _load(model, threads, beside=places, fidelity=options.fidelity or 0.0, **loading)
        if plan_only:
            return _show_plans(jobs, upscaler, options, console, as_json=as_json, debug=debug)
        if upscaler is not None:
            named = naming.ext != "auto" and [job.target for job in jobs] == [output]
            if idle := [*_idle(upscaler, options, words), *(["--ext (OUT is a file)"] if named else [])]:
                warnings.warn(f"without effect for {model.name}: {', '.join(idle)}", stacklevel=1)
        reporting = {"overwrite": naming.overwrite, "as_json": as_json, "debug": debug}
        _restore_all(jobs, upscaler, options, console, finished, **reporting)
    except AddSRError as error:
        _complain(console, error, debug)
        return 2
    except KeyboardInterrupt:
        restored = sum(done.error is None and not done.job.skipped for done in finished)
        more = f" after {_counted(restored)}; --skip-existing goes on from there" if restored else ""
        console.print(f"interrupted{more}", style="red")
        return 130
    except Exception as error:
        if not reader_is_gone(error):
            _complain(console, error, debug)
        return 1
    good = [done for done in finished if done.error is None and not done.job.skipped]
    pixels, seconds = sum(d.size[0] * d.size[1] for d in good), sum(d.seconds for d in good)
    skipped = sum(done.job.skipped for done in finished)
    failed = len(finished) - len(good) - skipped
    others = "".join(f", {count} {what}" for count, what in ((skipped, "skipped"), (failed, "failed")) if count)
    console.print(f"{_counted(len(good))}{others}, {pixels / 1e6:.2f} megapixels in {seconds:.2f} s")
    return 1 if failed else 0


def _counted(pictures: int) -> str:
    return "1 picture" if pictures == 1 else f"{pictures} pictures"


def _idle(upscaler: "Upscaler", options: "RestoreOptions", words: dict[str, Any]) -> list[str]:
    """What was asked for that the model, or the other options, leave without effect."""
    from addsr.diffusion.guidance import is_guided

    restorer, wordless = upscaler.restorer, upscaler.describer is None
    asked = upscaler.asked(options)
    unguided = not is_guided(asked.guidance_scale)
    idle = {
        "words": wordless and prompted(words),
        "--negative-prompt (guidance scale 1)": not wordless and unguided and words["negative_prompt"] is not None,
        "--guidance-scale": wordless and options.guidance_scale is not None,
        "--psr-weight (one step)": bool(options.psr_weight) and asked.num_inference_steps == 1,
        "--start-point": not restorer.sampler.starts_from_noise and options.start_point is not None,
        # without tiles or sizes that were published otherwise
        "--compat": restorer.is_local and options.compat != "paper",
    }
    return [name for name, given in idle.items() if given]


def prompted(words: dict[str, Any]) -> bool:
    """Whether the user said anything in words."""
    return any(words[name] for name in ("prompt", "added_prompt", "negative_prompt")) or not words["tags"]


def _load(model: ModelChoice, threads: int | None, **loading: Any) -> "Upscaler":
    from addsr.runtime.device import set_threads
    from addsr.runtime.memory import keep_freed_memory
    from addsr.runtime.quick_start import import_diffusers_without_dynamo

    import_diffusers_without_dynamo()
    from addsr.loading import load

    set_threads(threads)
    upscaler = load(*model, **loading)
    keep_freed_memory()  # from here on: what loading leaves behind goes back to the system
    return upscaler


def _show_plans(
    jobs: "list[Job]",
    upscaler: "Upscaler | None",
    options: "RestoreOptions",
    console: "Console",
    *,
    as_json: bool,
    debug: bool,
) -> int:
    """What each picture would take; returns the exit code."""
    from addsr.evaluation.plan import Planner
    from addsr.image.read import read_picture

    planner, failed = None, False
    for job in jobs:
        error: Exception | None = job.error
        try:
            if job.to_do and upscaler is not None:
                planner = planner or Planner(upscaler)
                expected = planner(read_picture(job.source), options)
                if as_json:
                    print(json.dumps({"input": str(job.source), **expected.row()}), flush=True)
                else:
                    print(f"{job.source}: {expected.text()}", flush=True)
        except Exception as raised:
            if reader_is_gone(raised):
                return 1
            error = raised
        if error is not None:
            failed = True
            _complain(console, error, debug, job)
            if as_json:
                print(json.dumps(_failure(job, error)), flush=True)
    return 1 if failed else 0


def _restore_all(
    jobs: "list[Job]",
    upscaler: "Upscaler | None",
    options: "RestoreOptions",
    console: "Console",
    finished: "list[Done]",
    *,
    overwrite: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Do the jobs under a progress bar (on a terminal), saying what became of each; `finished` grows by each."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from addsr import __version__
    from addsr.batch import run

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
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
                _complain(console, done.error, debug, done.job)
            elif not as_json:
                was_there = " (exists already: skipped)" if done.job.skipped else ""
                console.print(f"{done.job.source} -> {done.job.target}{was_there}", markup=False)


def _complain(console: "Console", error: Exception, debug: bool, job: "Job | None" = None) -> None:
    """One sentence."""
    console.print(f"error: {_sentence(error, job)}", style="red", markup=False)
    if debug:
        import traceback

        console.print("".join(traceback.format_exception(error)), markup=False)


def _sentence(error: Exception, job: "Job | None") -> str:
    """What went wrong, and with which picture; where the error is none of ours, its kind and first line."""
    from addsr.errors import AddSRError

    text = str(error) if isinstance(error, AddSRError) else f"{type(error).__name__}: {error}".splitlines()[0]
    if job is None or str(job.source) in text or str(job.target) in text:
        return text
    return f"{job.source}: {text}"


def _failure(job: "Job", error: Exception) -> dict[str, Any]:
    return {"input": str(job.source), "status": "error", "error": _sentence(error, job)}


def _row(done: "Done") -> dict[str, Any]:
    """One picture as --json prints it."""
    output = {} if done.job.target is None else {"output": str(done.job.target)}
    if done.error is not None:
        return _failure(done.job, done.error) | output
    if done.job.skipped:
        return {"input": str(done.job.source), "status": "skipped", **output}
    return {
        "input": str(done.job.source),
        "status": "ok",
        **output,
        "width": done.size[1],
        "height": done.size[0],
        "seconds": round(done.seconds, 3),
        **(done.made_by or {}),
    }
