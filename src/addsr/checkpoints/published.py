"""Where the parts of a model lie: in one folder of ours, or as AddSR and SeeSR publish them, beside Stable Diffusion 2."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from addsr.checkpoints.catalogue import cached_folders, read_catalogue
from addsr.checkpoints.hub_cache import cached_snapshot
from addsr.checkpoints.stable_diffusion import NETWORK_FILES, NETWORK_PICKLES, TEXT_FILES
from addsr.diffusion.defaults import ModelDefaults, misfit
from addsr.diffusion.samplers.addsr import AddSRSampler
from addsr.diffusion.samplers.ancestral import AncestralSampler
from addsr.diffusion.samplers.d3sr import D3SRSampler
from addsr.diffusion.samplers.sampler import Sampler
from addsr.errors import ModelError
from addsr.weights.reading import read_json

KINDS = ("addsr", "seesr", "seesr-turbo")
PIPELINES: dict[str, type[Sampler]] = {
    "AddSRPipeline": AddSRSampler, "SeeSRPipeline": AncestralSampler, "D3SRPipeline": D3SRSampler,
}  # fmt: skip
RAM_FILES = ("ram_swin_large_14m.safetensors", "ram_swin_large_14m.pth")
DAPE_FILES = ("DAPE.safetensors", "DAPE.pth")
BASE_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")
BASE_NETWORKS = ("vae", "text_encoder")
BASES = ("stable-diffusion-2-base", "stable-diffusion-2-1-base", "sd2-base", "sd2.1-base")  # names of neighbours

# The released inference; of its two PSR weights the one that its command states, see docs/published.md
DEFAULTS = {
    "addsr": ModelDefaults(num_inference_steps=4, psr_weight=0.5, guidance_scale=1.0),
    "seesr": ModelDefaults(num_inference_steps=50, psr_weight=0.0, guidance_scale=5.5),
    "seesr-turbo": ModelDefaults(num_inference_steps=2, psr_weight=0.0, guidance_scale=1.0, released_overlap=32),
}


@dataclass(frozen=True)
class ModelFiles:
    """A model's parts.

    Attributes:
        folder: what the user named.
        parts: component -> folder with its config and weights; `ram` and `dape` are files.
        sampler: how its steps go.
        defaults: numbers that belong to the weights.
        overlay: a folder whose U-Net brings the representation attentions to that of `parts` (SeeSR-Turbo).
        classes: class names by component, where model_index.json names them.
    """

    folder: Path
    parts: dict[str, Path]
    sampler: Sampler
    defaults: ModelDefaults
    overlay: Path | None = None
    classes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Beside:
    """What the user says of the parts that do not lie in the model's folder; None: look for them.

    Attributes:
        kind: `addsr`, `seesr` or `seesr-turbo`.
        base: folder or cached hub id of Stable Diffusion 2(.1)-base, or of SD-Turbo.
        ram, dape: files.
        catalogue: file with mirrors.
        lora: file with D³SR's adapters, for Stable Diffusion's folder.

    Raises:
        ModelError: for an unknown kind.
    """

    kind: str | None = None
    base: str | Path | None = None
    ram: Path | None = None
    dape: Path | None = None
    catalogue: Path | None = None
    lora: Path | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise ModelError(f"unknown kind of model {self.kind!r}; expected one of {', '.join(KINDS)}")


def is_published(folder: Path) -> bool:
    """Whether a folder is as AddSR and SeeSR publish their networks."""
    return all((folder / part / "config.json").is_file() for part in ("unet", "controlnet"))


def is_own(folder: Path) -> bool:
    """Whether a folder is one that we wrote. Stable Diffusion's has an index too, and a base that was copied into a
    published model's folder brings it there.
    """
    index = folder / "model_index.json"
    return index.is_file() and str(read_json(index).get("_class_name")) in PIPELINES


def is_stable_diffusion(folder: Path) -> bool:
    """Whether a folder is Stable Diffusion's, in diffusers' layout: no ControlNet, no model of ours."""
    if not all((folder / part).is_dir() for part in (*BASE_PARTS, "unet")) or (folder / "controlnet").is_dir():
        return False
    return not is_own(folder)


def is_sdxl(folder: Path) -> bool:
    """Whether a folder is SDXL's, in diffusers' layout."""
    config = folder / "unet" / "config.json"
    if not config.is_file() or not all((folder / part).is_dir() for part in ("vae", "scheduler")):
        return False  # the text encoders are not needed
    return read_json(config).get("addition_embed_type") == "text_time"


def stable_diffusion_files(folder: Path) -> ModelFiles:
    """Stable Diffusion 2(.1)-base as D³SR's generator, before training or under adapters."""
    parts = {part: folder / part for part in (*BASE_PARTS, "unet")}
    return ModelFiles(folder, parts, D3SRSampler(), ModelDefaults(num_inference_steps=1, color_fix="none"))


def check_holds_model(folder: Path) -> None:
    """Whether a folder is a model's, ours or a published one.

    Raises:
        ModelError: if it is not.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder")
    if not (folder / "model_index.json").is_file() and not is_published(folder):
        raise ModelError(
            f"{folder}: no model_index.json in the folder, nor unet/ and controlnet/, so it holds no model"
        )


def locate(folder: Path, beside: Beside | None = None, name: str = "") -> ModelFiles:
    """Find the parts of the model in `folder`. Nothing heavy is read and nothing is downloaded.

    Args:
        folder: of the model.
        beside: where other parts lie.
        name: what the user called the model, which may say that it is SeeSR where the folder's own name does not.

    Raises:
        ModelError: if a part is missing; the message says where it was looked for.
    """
    beside = beside or Beside()
    if beside.lora is not None:
        files = _with_adapters(folder, beside.lora)
        _refuse_parts(folder, beside)
        return files
    check_holds_model(folder)
    if is_own(folder) or not is_published(folder):
        files = _own(folder)
        _refuse_parts(folder, beside)
        return files
    kind = beside.kind or _kind(folder, name)
    turbo = kind == "seesr-turbo"
    base = _base(folder, beside, turbo)
    parts = {"unet": (base if turbo else folder) / "unet", "controlnet": folder / "controlnet"}
    parts |= {part: base / part for part in BASE_PARTS}
    parts["ram"], parts["dape"] = locate_tagger(folder, beside)
    sampler = AddSRSampler() if kind == "addsr" else AncestralSampler()
    return ModelFiles(folder, parts, sampler, DEFAULTS[kind], folder / "unet" if turbo else None)


def _refuse_parts(folder: Path, beside: Beside) -> None:
    for word in ("kind", "base", "ram", "dape"):
        if getattr(beside, word) is not None:
            raise ModelError(f"{folder}: holds all its parts, so --{word} has no effect")


def _with_adapters(folder: Path, lora: Path) -> ModelFiles:
    """Stable Diffusion, whose U-Net is to take the adapters of a file (our models have theirs merged)."""
    if not lora.is_file():
        raise ModelError(f"{lora}: no such file")
    if not is_stable_diffusion(folder):
        raise ModelError(f"{folder}: adapters go with Stable Diffusion 2(.1)-base's own folder, which this is not")
    files = stable_diffusion_files(folder)
    files.parts["lora"] = lora
    return files


def locate_tagger(folder: Path, beside: Beside) -> tuple[Path, Path]:
    """The files of RAM and DAPE that belong to a published model.

    Raises:
        ModelError: if one is missing.
    """
    ram = _file(beside.ram, RAM_FILES, "RAM", "--ram", folder, "ram", beside)
    return ram, _file(beside.dape, DAPE_FILES, "DAPE", "--dape", folder, "seesr", beside)


def _kind(folder: Path, name: str) -> str:
    """`seesr`, or `seesr-turbo`, where the folder, what the user called it, or its repository in the hub cache says so and
    not AddSR. Only the last part of a path or hub id counts: models/seesr/checkpoint may hold anything.
    """
    place = folder.resolve()
    repository = place.parent.parent.name.split("--")[-1] if place.parent.name == "snapshots" else ""
    words = " ".join([place.name, Path(name).name, repository]).lower()
    if "seesr" not in words or "addsr" in place.name.lower():
        return "addsr"
    return "seesr-turbo" if _is_turbo(words) else "seesr"


def _own(folder: Path) -> ModelFiles:
    """A folder written by AddSRPipeline.save_pretrained or `addsr convert`."""
    index = read_json(folder / "model_index.json")
    pipeline = str(index.get("_class_name"))
    if pipeline not in PIPELINES:
        raise ModelError(f"{folder}: holds a {pipeline}, not one of {', '.join(PIPELINES)}")
    classes = {}
    for part in ("unet", "controlnet", *BASE_PARTS, "image_encoder", "fixed_prompt"):
        entry = index.get(part)
        if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None:
            classes[part] = str(entry[1])
    if missing := [part for part in ("unet", "vae", "scheduler") if part not in classes]:
        raise ModelError(f"{folder}: model_index.json names no {missing[0]}")
    kind = PIPELINES[pipeline]
    names: tuple[str, ...] = ("start_point", "psr_weight", "num_inference_steps", "color_fix")
    optional: tuple[str, ...] = ("guidance_scale", "released_overlap")
    if kind is D3SRSampler:
        names, optional = ("one_step_timestep", "color_fix"), ()
    if absent := [name for name in names if name not in index]:
        raise ModelError(f"{folder}: model_index.json has no {absent[0]}")
    defaults = {name: index[name] for name in (*names, *optional) if name in index}
    for name, value in defaults.items():
        if must := misfit(name, value, kind.name):
            raise ModelError(f"{folder}: {name} in model_index.json is {value!r}; it must be {must}")
    if kind is D3SRSampler:
        sampler = D3SRSampler(index["one_step_timestep"])
        defaults = {"num_inference_steps": 1, "color_fix": index["color_fix"]}
    else:
        sampler = kind()
    parts = {part: folder / part for part in classes}
    return ModelFiles(folder, parts, sampler, ModelDefaults(**defaults), classes=classes)


def _base(folder: Path, beside: Beside, turbo: bool) -> Path:
    """The folder of Stable Diffusion 2(.1)-base: named, around the model, or in the hub cache."""
    wanted, networks = BASE_PARTS, BASE_NETWORKS
    if turbo:
        wanted, networks = (*wanted, "unet"), (*networks, "unet")
    if beside.base is not None:
        named = Path(beside.base)
        if not named.is_dir():
            cached = cached_snapshot(str(beside.base))
            if cached is None:
                raise ModelError(
                    f"{beside.base}: neither a folder nor in the local hub cache (nothing is downloaded here)"
                )
            named = cached
        if missing := [part for part in wanted if not (named / part).is_dir()]:
            raise ModelError(f"{named}: no folder {missing[0]}/ in it, so it is no Stable Diffusion base")
        if reason := _misfit(named, folder, networks):
            raise ModelError(f"{named}: {reason}, so it is not the base of {folder}")
        return named
    names = ("sd-turbo",) if turbo else ("sd2-base", "sd2.1-base")
    around = [path for path in _folders(folder.absolute().parent) if path != folder.absolute()]
    neighbours = sorted(around, key=lambda path: (_rank(path.name), path.name))
    if turbo:
        neighbours = [path for path in neighbours if _is_turbo(path.name)]
    places = [*([] if turbo else [folder]), *neighbours]
    misfits = []
    for place in (*places, *cached_folders(names, read_catalogue(beside.catalogue))):
        if all(_is_folder(place / part) for part in wanted) and not _is_readably_own(place):
            reason = _misfit(place, folder, networks)
            if not reason and not turbo and place in neighbours and _is_turbo(place.name):
                reason = "its name is SD-Turbo's (--kind seesr-turbo takes that)"
            if not reason:
                return place
            misfits.append(f"; {place} is none, as {reason}")
    what = "SD-Turbo" if turbo else "Stable Diffusion 2(.1)-base"
    raise ModelError(
        f"{folder}: needs {what} ({', '.join(wanted)}), which is neither in it, nor beside it, nor in the hub cache: "
        f"give its folder with --base, or run addsr download {names[0]}{''.join(misfits)}"
    )


def _is_readably_own(folder: Path) -> bool:
    """A stranger's damaged index is no reason to give up a search."""
    try:
        return is_own(folder)
    except ModelError:
        return False


def _rank(name: str) -> int:
    """Stable Diffusion's own folders first."""
    return BASES.index(name) if name in BASES else len(BASES)


def _is_turbo(name: str) -> bool:
    return "turbo" in name.lower()


def _misfit(base: Path, folder: Path, networks: Sequence[str]) -> str:
    """Why a base does not go with the networks of a model; empty where nothing speaks against it."""
    for part in networks:  # a download that broke off leaves the small files
        names = TEXT_FILES if part == "text_encoder" else (*NETWORK_FILES, *NETWORK_PICKLES)
        if not any(_is_file(base / part / name) for name in names):
            return f"its {part}/ holds no weights"
    wanted = read_json(folder / "unet" / "config.json").get("cross_attention_dim", 1024)
    try:
        width = read_json(base / "text_encoder" / "config.json").get("hidden_size")
        prediction = read_json(base / "scheduler" / "scheduler_config.json").get("prediction_type", "epsilon")
    except ModelError as error:
        return str(error)
    if width != wanted:
        return f"its text encoder is {width} wide instead of {wanted}"
    return "" if prediction == "epsilon" else f"it predicts {prediction} instead of epsilon"


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # behind a folder that may not be read
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _folders(parent: Path) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if _is_folder(path)]
    except OSError:
        return []


def _file(
    named: Path | None,
    names: tuple[str, ...],
    what: str,
    option: str,
    folder: Path,
    entry: str,
    beside: Beside,
) -> Path:
    """A released file: named by the user, in the model's folder, beside it, or in the hub cache."""
    if named is not None:
        if not named.is_file():
            raise ModelError(f"{named}: no such file")
        return named

    def places() -> Iterator[Path]:
        parent = folder.absolute().parent
        yield from (folder, parent, parent / entry)
        yield from cached_folders([entry], read_catalogue(beside.catalogue))

    for place in places():
        for name in names:
            try:
                if (place / name).is_file():
                    return place / name
            except OSError:
                continue
    raise ModelError(
        f"{folder}: needs {what} ({names[-1]}), which is neither in the folder, nor beside it, nor in the hub cache: give "
        f"it with {option}, or run addsr download {entry}"
    )
