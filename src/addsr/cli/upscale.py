"""addsr upscale: files and folders in, restored and enlarged pictures out."""

from dataclasses import dataclass
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
from addsr.cli.report import Report

if TYPE_CHECKING:
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
    return _run(
        Request(
            inputs,
            output,
            settings,
            words,
            ModelChoice(model, device, precision),
            beside={"kind": kind, "base": base, "ram": ram, "dape": dape, "catalogue": catalogue, "lora": lora},
            loading={"offload": offload, "compile": compile_networks},
            naming=Naming(suffix, ext, overwrite, skip_existing),
            recursive=recursive,
            threads=threads,
        ),
        plan_only=plan,
        report=Report(as_json=as_json, debug=debug),
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


@dataclass(frozen=True)
class Request:
    """What the command line asks for, checked as far as that needs no model."""

    inputs: list[Path]
    output: Path | None
    settings: dict[str, Any]
    """Of `addsr.options.RestoreOptions`, without the words."""
    words: dict[str, Any]
    """Of `addsr.prompts.options.PromptOptions`."""
    model: ModelChoice
    beside: dict[str, Any]
    """The published model's other parts, of `addsr.cli.model_options.beside`."""
    loading: dict[str, bool]
    naming: Naming
    recursive: bool
    threads: int | None


def _run(request: Request, *, plan_only: bool, report: Report) -> int:
    """Plan, load, restore, report; returns the exit code."""
    from addsr.errors import AddSRError

    try:
        with report.listening():
            with report.status("starting …"):
                jobs, upscaler, options = _prepare(request, written=not plan_only)
            if upscaler is not None:
                named = request.naming.ext != "auto" and [job.target for job in jobs] == [request.output]
                idle = [*_idle(upscaler, options, request.words), *(["--ext (OUT is a file)"] if named else [])]
                if idle:
                    report.warn(f"without effect for {request.model.name}: {', '.join(idle)}")
            if plan_only:
                return _plan_all(jobs, upscaler, options, report)
            _restore_all(jobs, upscaler, options, report, overwrite=request.naming.overwrite)
    except AddSRError as error:
        report.wrong(error)
        return 2
    except KeyboardInterrupt:
        report.interrupted()
        return 130
    except Exception as error:
        if not reader_is_gone(error):
            report.wrong(error)
        return 1
    report.close()
    return 1 if report.failed else 0


def _prepare(request: Request, *, written: bool) -> "tuple[list[Job], Upscaler | None, RestoreOptions]":
    """Check what was asked for, plan the jobs, and load the model if any of them needs it."""
    from addsr.checkpoints.faithful import has_faithful
    from addsr.checkpoints.published import locate
    from addsr.cli.model_options import beside
    from addsr.jobs import plan
    from addsr.loading import find_model
    from addsr.options import RestoreOptions
    from addsr.prompts.options import PromptOptions

    options = RestoreOptions(**request.settings, words=PromptOptions(**request.words))
    places = beside(**request.beside)
    files = locate(find_model(request.model.name, places), places, request.model.name)
    options.check(files.sampler, has_faithful(files))  # before any folder is made
    naming = request.naming._asdict()
    jobs = plan(request.inputs, request.output, **naming, recursive=request.recursive, written=written)
    upscaler = None
    if any(job.to_do for job in jobs):
        more = {"beside": places, "fidelity": options.fidelity or 0.0, **request.loading}
        upscaler = _load(request.model, request.threads, **more)
    return jobs, upscaler, options


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


def _plan_all(jobs: "list[Job]", upscaler: "Upscaler | None", options: "RestoreOptions", report: Report) -> int:
    """Say what each picture would take; returns the exit code."""
    from addsr.evaluation.plan import Planner
    from addsr.image.read import read_picture

    planner = None
    for job in jobs:
        error: Exception | None = job.error
        try:
            if job.to_do and upscaler is not None:
                planner = planner or Planner(upscaler)
                report.planned(job, planner(read_picture(job.source), options))
        except Exception as raised:
            if reader_is_gone(raised):
                return 1
            error = raised
        if error is not None:
            report.unplanned(job, error)
    return 1 if report.failed else 0


def _restore_all(
    jobs: "list[Job]", upscaler: "Upscaler | None", options: "RestoreOptions", report: Report, *, overwrite: bool
) -> None:
    """Do the jobs under a progress bar, saying what became of each."""
    from addsr import __version__
    from addsr.batch import run

    with report.progress(len(jobs)) as bar:
        for done in run(jobs, upscaler, options, __version__, overwrite, bar.on_tile):
            bar.advance()
            report.done(done)
