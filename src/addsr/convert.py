"""A model's parts, wherever they lie, as one folder that `addsr upscale --model` and the pipelines take."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers.utils.logging import disable_progress_bar

from addsr.checkpoints.faithful import faithful_files
from addsr.checkpoints.hashes import HASHES, file_sha256, hash_list
from addsr.checkpoints.published import ModelFiles
from addsr.errors import OutputError
from addsr.loading import load_describer, load_restorer
from addsr.models.tagger import TAG_FILE, THRESHOLD_FILE
from addsr.pipelines.of_restorer import pipeline_of, save_pipeline
from addsr.runtime.complete_folder import complete_folder, settle_files
from addsr.runtime.device import choose_precision
from addsr.weights.building import first_line
from addsr.weights.reading import read_tensors


def convert_model(files: ModelFiles, out: Path, precision: str = "keep") -> dict[str, int]:
    """Read, check and write a model. The folder appears when it is complete.

    Args:
        files: from `locate`.
        out: must not exist.
        precision: `keep`, `fp32`, `bf16` or `fp16`.

    Returns:
        The size in bytes of each file written.

    Raises:
        ModelError: if a key or shape does not fit, or a file is damaged or holds code.
        OutputError: if `out` exists or cannot be written.
    """
    if out.exists():
        raise OutputError(f"{out}: exists already; choose another name")
    with ExitStack() as folder:
        with _written(out):  # a folder that cannot be made is told before minutes of reading
            part = folder.enter_context(complete_folder(out))
        dtype = None if precision == "keep" else choose_precision(precision, torch.device("cpu"))
        pipeline = _pipeline(files, dtype)
        with _written(out):
            save_pipeline(pipeline, part)
            for name, path in faithful_files(files).items():
                save_file(read_tensors(path, dtype), part / name / path.name)
            (part / HASHES).write_text(hash_list(part, file_sha256), encoding="utf-8", newline="\n")
            (part / "MODEL_CARD.md").write_text(_card(files, pipeline, precision), encoding="utf-8")
            settle_files(part)
            folder.close()  # it gets its name
    return {path.relative_to(out).as_posix(): path.stat().st_size for path in out.rglob("*") if path.is_file()}


@contextmanager
def _written(out: Path) -> Iterator[None]:
    """Raises OutputError for what cannot be written."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{out}: cannot be written ({first_line(error)})") from error


def _pipeline(files: ModelFiles, dtype: torch.dtype | None) -> DiffusionPipeline:
    """The model, read and checked, with its scheduler and words."""
    restorer = load_restorer(files, dtype)
    describer = load_describer(files, restorer, dtype)
    words = None if describer is None else describer.encode_prompt
    if not getattr(restorer.image_encoder, "tag_names", True):
        warnings.warn(
            f"{files.folder}: no {TAG_FILE} was found, so the converted model recognises no tags until the list, and "
            f"{THRESHOLD_FILE}, lie in it",
            stacklevel=3,
        )
    disable_progress_bar()
    clips = restorer.schedule.clip_sample_range is not None  # where the config says nothing, DDPMScheduler would
    scheduler = DDPMScheduler.from_pretrained(files.parts["scheduler"], local_files_only=True, clip_sample=clips)
    text_encoder, tokenizer = (None, None) if words is None else (words.text_encoder, words.tokenizer)
    return pipeline_of(restorer, scheduler, text_encoder, tokenizer)


def _card(files: ModelFiles, pipeline: Any, precision: str) -> str:
    numbers = {key: value for key, value in pipeline.config.items() if isinstance(value, int | float | str)}
    defaults = ", ".join(f"{key} {value}" for key, value in numbers.items() if not key.startswith("_"))
    rows = "\n".join(f"| {part} | `{'/'.join(path.parts[-2:])}` |" for part, path in files.parts.items())
    kept = "their type kept" if precision == "keep" else f"as {precision}"
    return f"""---
license: other
library_name: addsr
pipeline_tag: image-to-image
---
# {files.sampler.title}, converted by addsr

The published weights, {kept}; adapters (DAPE's, D³SR's) are merged.

| part | from |
|---|---|
{rows}

Defaults: {defaults}.

Licences are those of the parts: AddSR and SeeSR Apache-2.0, Stable Diffusion 2 CreativeML Open RAIL++-M (with its
restrictions of use), RAM Apache-2.0. `sha256sum -c {HASHES}` checks the files.
"""
