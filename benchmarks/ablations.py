"""The papers' ablations from matched short runs: one fixed number of images, several seeds, one element changed at a time.

    python benchmarks/ablations.py addsr --data SHARD... --lpips FILE --teacher RUN --cases C --hr HR --tools TOOLS --out O
    python benchmarks/ablations.py d3sr  --data SHARD... --lpips FILE --discriminator RUN --larger RUN ...

Each run is `addsr train compact-addsr` (or `compact-d3sr`) with the switch of its row; --rows takes some of the rows. What
is done is kept in O, the measures in rows.jsonl, and not repeated. Prints a Markdown table of the mean over the seeds, and
half the distance between the largest and the smallest as the spread.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

from quality import MEASURES, Quality

import addsr

LARGER = "larger discriminator"
RUNS: dict[str, dict[str, tuple[str, ...]]] = {  # row -> settings
    "addsr": {
        "full": (),
        "teacher sees LR (Table 4)": ("task.hr_conditioned=false", "task.hr_tokens=false"),
        "without PSR (Table 5)": ("task.psr=false",),
        "without TA loss (Table 6)": ("task.timestep_adapting=false",),
        "without teacher": ("task.distillation=0.0",),
    },
    "d3sr": {  # the paper's order: of the distance beside MSE, and of the discriminator
        "MSE": ("task.perceptual=none",),
        "LPIPS": ("task.perceptual=lpips",),
        "EA-LPIPS, discriminator of its own size": (),
        "no discriminator": ("task.discriminator=none",),
        "CNN on pixels": ("task.discriminator=cnn",),
        "random U-Net": ("task.discriminator=random",),
        LARGER: (),
    },
}
STEPS = {"addsr": (1, 4), "d3sr": (1,)}


def networks_of(name: str, options: argparse.Namespace) -> dict[str, str]:
    """Option of addsr train -> the network that a row's run gets by it."""
    judge = options.larger if name == LARGER else options.discriminator
    networks = {"init": options.init, "lpips": options.lpips, "teacher": options.teacher, "discriminator": judge}
    return {option: str(value) for option, value in networks.items() if value is not None}


def train(kind: str, run: dict[str, Any], data: list[Path], out: Path) -> Path:
    """The run of one row, unless it was done before; the model's folder."""
    if (out / "model").is_dir():
        return out / "model"
    shutil.rmtree(out, ignore_errors=True)
    words = [sys.executable, "-m", "addsr", "train", f"compact-{kind}", "--out", str(out), "--seed", str(run["seed"])]
    words += [word for path in data for word in ("--data", str(path))]
    words += [word for option, value in run["networks"].items() for word in (f"--{option}", value)]
    words += [word for setting in run["settings"] for word in ("--set", setting)]
    log = out.with_suffix(".log")
    with log.open("w") as file:
        if subprocess.run(words, stderr=file, check=False).returncode:
            raise SystemExit(f"a run failed: {' '.join(words)}\n{log.read_text()[-2000:]}")
    for checkpoint in out.glob("checkpoint-*"):  # with the optimisers' state ten times the model
        shutil.rmtree(checkpoint)
    return out / "model"


def folder_name(run: dict[str, Any]) -> str:
    """Of one row's run, and of no other."""
    digest = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:8]
    return "-".join([*re.findall(r"\w+", run["name"]), digest])


def table(kind: str, rows: list[dict[str, Any]]) -> str:
    """Markdown: PSNR-Y / LPIPS / NIQE of the mean of the cases, by row and number of steps."""
    lines = ["| | " + " | ".join(f"{n} step{'s' if n > 1 else ''}" for n in STEPS[kind]) + " |"]
    lines.append("|---" * (1 + len(STEPS[kind])) + "|")
    for name in RUNS[kind]:
        cells = [name]
        for steps in STEPS[kind]:
            found = [row["means"]["mean"] for row in rows if row["name"] == name and row["steps"] == steps]
            texts = []
            for measure, digits in zip(MEASURES, (2, 4, 2), strict=True):
                values = [means[measure] for means in found if measure in means]
                if values:
                    spread = (max(values) - min(values)) / 2
                    texts.append(f"{sum(values) / len(values):.{digits}f} ± {spread:.{digits}f}")
            cells.append(" / ".join(texts))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def row_of(row: dict[str, Any], key: dict[str, Any]) -> bool:
    """Whether a row was measured of this very run."""
    return all(row.get(part) == value for part, value in key.items())


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=tuple(RUNS))
    parser.add_argument("--data", type=Path, action="append", required=True)
    for name in ("lpips", "cases", "hr", "tools", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--init", help="model that every run starts from; default: the preset's")
    parser.add_argument("--teacher")
    parser.add_argument("--discriminator")
    parser.add_argument("--larger")
    parser.add_argument("--rows", nargs="+", help="only those whose names hold one of these words")
    parser.add_argument("--images", type=int, default=2400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--photos", type=int, default=0, help="measure on the first so many only")
    parser.add_argument("--set", action="append", default=[], help="setting of all runs, as addsr train takes it")
    options = parser.parse_args()
    names = [name for name in RUNS[options.kind] if not options.rows or any(word in name for word in options.rows)]
    needed = (
        {"teacher"} if options.kind == "addsr" else {"larger" if name == LARGER else "discriminator" for name in names}
    )
    for name in sorted(needed):  # without it, what the run starts from would be taken
        if getattr(options, name) is None:
            parser.error(f"give --{name}")
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "rows.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    keys = []
    quality = Quality(options.cases, options.hr, options.tools, options.photos)
    for seed, name in product(options.seeds, names):
        settings = [f"loop.images={options.images}", f"loop.save={options.images}", *options.set]
        settings += RUNS[options.kind][name]
        run = {"name": name, "seed": seed, "settings": settings, "networks": networks_of(name, options)}
        key = run | {"photos": options.photos}
        keys.append(key)
        if any(row_of(row, key) for row in rows):
            continue
        model = train(options.kind, run, options.data, options.out / folder_name(run))
        upscaler = addsr.load(model, device="cpu", precision="fp32")
        found = [key | {"steps": steps, "means": quality(upscaler, steps=steps)} for steps in STEPS[options.kind]]
        rows += found
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))
        print(name, seed, *(json.dumps(row["means"]["mean"]) for row in found), flush=True)
    print(table(options.kind, [row for row in rows if any(row_of(row, key) for key in keys)]))


if __name__ == "__main__":
    main()
