"""addsr info: what is installed, what it would compute on, and which models there are."""

import json
import math
import sys
from typing import Annotated, Any

import typer


def info(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> int:
    """Show versions, the device and precision that would be used, and the models with size, licence and hash."""
    report = _report()
    if as_json:
        print(json.dumps(report, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    # a table is cut to the terminal's width, which a pipe does not have
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
    for name, value in report.items():
        if name != "models":
            console.print(f"{name:<12} {value}", markup=False)
    table = Table("model", "parameters", "size", "steps", "licence", "sha256", box=None, pad_edge=False)
    for model in report["models"]:
        cells = (f"{model['parameters'] / 1e6:.1f} M", f"{model['bytes'] / 1e6:.1f} MB", str(model["default_steps"]))
        table.add_row(model["name"], *cells, model["licence"], model["sha256"])
    console.print(table)
    return 0


def _report() -> dict[str, Any]:
    import platform
    from importlib.metadata import version

    import torch

    from addsr import __version__
    from addsr.bundled import bundled_models
    from addsr.runtime.device import choose_device, choose_precision

    device = choose_device()
    names = {"cpu": platform.processor() or platform.machine(), "cuda": "", "mps": "Apple GPU"}
    if device.type == "cuda":
        names["cuda"] = torch.cuda.get_device_name(device)
    return {
        "addsr": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: version(package) for package in ("torch", "diffusers", "transformers", "Pillow")},
        "device": f"{device} ({names[device.type]}, {torch.get_num_threads()} threads)",
        "precision": str(choose_precision("auto", device)).removeprefix("torch."),
        "models": [_describe(name, folder) for name, folder in bundled_models().items()],
    }


def _describe(name: str, folder: Any) -> dict[str, Any]:
    from safetensors import safe_open

    from addsr.checkpoints.faithful import FAITHFUL_FILE
    from addsr.checkpoints.hashes import weights_sha256
    from addsr.checkpoints.published import locate

    parameters = 0
    for path in folder.rglob("*.safetensors"):
        if path.name == FAITHFUL_FILE:
            continue  # the same parameters once more
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                parameters += math.prod(file.get_slice(key).get_shape())
    card = folder / "MODEL_CARD.md"
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    licence = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("license:")), "not stated")
    files = locate(folder)
    return {
        "name": name,
        "parameters": parameters,
        "bytes": sum(path.stat().st_size for path in folder.rglob("*.safetensors")),
        "default_steps": files.defaults.num_inference_steps,
        "licence": licence,
        "sha256": weights_sha256(files),
        "folder": str(folder),
    }
