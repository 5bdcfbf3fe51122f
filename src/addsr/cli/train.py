"""addsr train: train or finetune a model from photos."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from addsr.cli.failure import failing_cleanly
from addsr.cli.given_path import given_name, given_path

FINETUNE = "compact-finetune"


def train(
    preset: Annotated[
        str | None, typer.Argument(help="A preset's name (--list names them) or a TOML file.", show_default=False)
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder or tar shard of sharp photos; may be repeated.", show_default=False, parser=given_path
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default=False, parser=given_path)] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Folder of real pairs: hr/ and lr/, the same names.", parser=given_path)
    ] = None,
    finetune: Annotated[bool, typer.Option("--finetune", help=f"Adapt the bundled model: preset {FINETUNE}.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    init: Annotated[str | None, typer.Option(help="Model or earlier run to start from.", parser=given_name)] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Model or run of all timesteps to distil from, such as compact-teacher leaves.", parser=given_name
        ),
    ] = None,
    lpips: Annotated[
        Path | None,
        typer.Option(
            help="LPIPS-Squeeze: a file, or a folder of torchvision's SqueezeNet 1.1 and LPIPS's squeeze.pth.",
            parser=given_path,
        ),
    ] = None,
    dino: Annotated[
        Path | None,
        typer.Option(
            help="DINO v1 ViT-S/16 (transformers folder or released file), for its discriminator.", parser=given_path
        ),
    ] = None,
    dinov2: Annotated[
        Path | None, typer.Option(help="DINOv2 (folder or file) that shows it LR, as in the paper.", parser=given_path)
    ] = None,
    discriminator: Annotated[
        str | None,
        typer.Option(help="D3SR: model or run whose U-Net judges; default: what --init names.", parser=given_name),
    ] = None,
    dists: Annotated[
        Path | None,
        typer.Option(
            help="D3SR: DISTS: a file, or a folder of torchvision's VGG-16 and DISTS's weights.pt.", parser=given_path
        ),
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Change a setting; may be repeated.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after this time, to be resumed.")] = None,
    show_presets: Annotated[bool, typer.Option("--list", help="List the presets and exit.")] = False,
    show_settings: Annotated[
        bool,
        typer.Option(
            "--settings",
            help="List the settings of the preset (with --resume, of the run) and exit.",
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train or finetune a model from photos; the result is the model folder OUT/model."""
    with failing_cleanly(debug):
        from addsr.training.config import NETWORKS, load_preset, merged, preset_names, read_run_config, table_assignment

        if show_presets:
            for name in preset_names():
                typer.echo(f"{name}: {load_preset(name).get('description', '')}")
            return
        if show_settings:
            from addsr.training.describe import settings_lines

            of_run = out if resume else None
            config = load_preset(preset or FINETUNE) if of_run is None else read_run_config(of_run)
            for change in [*(changes or []), *([] if seed is None else [f"loop.seed={seed}"])]:
                config = merged(config, table_assignment(change))
            for line in settings_lines(config):
                typer.echo(line)
            return
        if out is None:
            raise typer.BadParameter("give the folder of the run", param_hint="--out")
        kept = read_run_config(out) if resume else None
        if finetune and preset is not None:
            raise typer.BadParameter(f"--finetune is the preset {FINETUNE}; give one of them", param_hint="PRESET")
        if kept is not None and init is not None and "init" not in kept:
            raise typer.BadParameter("the run in --out began with networks of its own", param_hint="--init")
        if kept is not None and (preset is not None or finetune):
            _say("the preset is not read: a resumed run goes on with its own settings, and what --set changes")
        preset = FINETUNE if finetune else preset
        if preset is None and kept is None:
            raise typer.BadParameter("give a preset (--list names them) or --finetune", param_hint="PRESET")
        config = _with_faithful_named(kept) if kept is not None else load_preset(preset or "")
        if init is not None and "init" not in config:  # the model brings its own networks
            passed_over = [name for name in NETWORKS if name in config]
            config = {name: value for name, value in config.items() if name not in passed_over}
            if passed_over:
                tables = " and ".join(f"[{name}]" for name in passed_over)
                _say(f"the networks are those of {init}: {tables} of the preset is passed over")
        words = {"init": init, "teacher": teacher, "discriminator": discriminator}
        paths = {"data": data, "pairs": pairs, "lpips": lpips, "dino": dino, "dinov2": dinov2, "dists": dists}
        given: dict[str, Any] = {name: value for name, value in words.items() if value is not None}
        given["sources"] = {name: _texts(value) for name, value in paths.items() if value}
        config = merged(config, given)
        if kept is not None and init is not None and _is_gone(before := config.get("faithful")):
            _say(f"{before} is gone: the faithful weights are those of {init}")
            config = merged(config, {"faithful": init})
        for change in changes or []:
            config = merged(config, table_assignment(change))
        loop = {"seed": seed, "max_minutes": max_minutes}
        config = merged(config, {"loop": {name: value for name, value in loop.items() if value is not None}})
        config = _with_faithful_named(config)
        for name in ("init", "teacher", "discriminator", "faithful"):
            if isinstance(config.get(name), str) and config[name] != "init":  # faithful's word for what init is
                config[name] = _absolute(config[name])
        if not config["sources"].get("data") and not config["sources"].get("pairs"):
            raise typer.BadParameter("give a folder or tar shard of photos, or --pairs", param_hint="--data")

        if "unet" in config and "init" in config and not resume:
            _say(f"the U-Net starts afresh, as [unet] says; the other networks are those of {config['init']}")

        from addsr.data.photos import left_out_line
        from addsr.training.notices import check_words
        from addsr.training.run import train as run  # heavy: only once the command is known to make sense

        if resume:  # a new run checks the whole of its config
            check_words({"task": config.get("task", {}), **given})
        outcome = run(config, out, resume=resume, quiet=False, notice=_say)
    if outcome.damaged:
        _say(left_out_line("damaged", outcome.damaged))
    state = "finished" if outcome.finished else "stopped, to go on with --resume"
    _say(f"{outcome.images} images, {state}; model: {outcome.model}")


def _with_faithful_named(config: dict[str, Any]) -> dict[str, Any]:
    """Faithful weights that are those of `init` by name: another --init at a resume is not what the run started from."""
    start = config.get("init")
    return config | {"faithful": start} if config.get("faithful") == "init" and start is not None else config


def _is_gone(source: str | None) -> bool:
    """A folder that is no longer there; a bundled name or hub id cannot go."""
    return source is not None and Path(source).is_absolute() and not Path(source).is_dir()


def _say(line: str) -> None:
    """On stderr, once where several processes train."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(line, err=True)


def _absolute(source: str) -> str:
    """A folder's path for good; a bundled name or hub id as it is."""
    from addsr.bundled import bundled_models

    return source if source in bundled_models() or not Path(source).is_dir() else str(Path(source).absolute())


def _texts(value: Path | list[Path]) -> str | list[str]:
    """Absolute, so that a resumed run finds them from anywhere."""
    return [str(path.absolute()) for path in value] if isinstance(value, list) else str(value.absolute())
