"""Weights from a file: safetensors, or pickles whose code is never run."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from addsr.errors import ModelError
from addsr.weights.building import first_line

WRAPPERS = ("model", "state_dict", "module", "teacher")  # keys under which releases nest their weights
PICKLE, ZIP = b"\x80", b"PK"  # how such files begin
FORBIDDEN = ("unsupported", "global", "reduce", "persistent")  # PyTorch's words for what only a program would need

PART = 1 << 28  # bytes converted at a time: a file twice the size of its converted weights never lies in memory whole


def read_tensors(path: Path, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, mapped into memory where nothing has to be converted.

    Args:
        path: `.safetensors`, or a pickle (`.bin`, `.pth`, `.pt`, `.ckpt`), which is read with `weights_only=True`.
        dtype: of floating-point tensors; None keeps the file's.

    Raises:
        ModelError: if the file is missing, truncated, holds no tensors, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return _read_safetensors(path, dtype)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path}: {_mistaken(path) or f'damaged or truncated ({first_line(error)})'}") from error
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickle protocols, which are nobody's business
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if mistaken := _mistaken(path):
            raise ModelError(f"{path}: {mistaken}") from error
        forbidden = any(word in str(error).partition("WeightsUnpickler error")[2].lower() for word in FORBIDDEN)
        reason = "it is damaged, or no file of weights"
        if forbidden and _head(path).startswith((PICKLE, ZIP)):
            reason = "it holds more than weights, code perhaps, and none of it was run"
        raise ModelError(f"{path}: refused ({reason})") from error
    except Exception as error:  # a damaged pickle fails in any way that a program can
        reason = f"damaged or truncated ({first_line(error)})"
        if "weights_only" in str(error):
            reason = "refused (TorchScript, or an old kind of archive, which may hold code; none of it was run)"
        elif "central directory" in str(error):
            reason = "damaged or truncated (its end is missing)"
        raise ModelError(f"{path}: {_mistaken(path) or reason}") from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = content if isinstance(content, Mapping) else {}
    tensors = {str(key): value.detach() for key, value in tensors.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ModelError(f"{path}: holds no weights")
    if odd := [key for key, value in tensors.items() if value.is_meta or value.layout != torch.strided]:
        raise ModelError(f"{path}: {odd[0]} is no plain tensor (sparse, or without values)")
    return {key: _converted(value, dtype) for key, value in _untied(tensors).items()}


def read_named(
    path: Path, names: Iterable[str], network: str, released: Mapping[str, str] | None = None
) -> dict[str, torch.Tensor]:
    """The named tensors of a file as float32, which may hold others too.

    Args:
        path: see `read_tensors`; or a folder of such files, which have the tensors between them.
        names: of all that `network` needs.
        network: what it is, for the message.
        released: names under which others publish them, and ours.

    Raises:
        ModelError: as `read_tensors`, and where one is missing or two files of a folder have it.
    """
    released, tensors, sources = released or {}, {}, {}
    wanted = dict.fromkeys(names)
    for file in _weight_files(path) if path.is_dir() else [path]:
        for key, value in read_tensors(file).items():
            name = released.get(key, key)
            if name not in wanted:
                continue
            if name in tensors:
                both = f"{sources[name].name} and {file.name}"
                raise ModelError(f"{path}: {key} is there twice ({both}); keep only the files of {network} in it")
            tensors[name], sources[name] = value.float(), file
    if missing := [name for name in wanted if name not in tensors]:
        raise ModelError(f"{path}: not {network} ({missing[0]} is missing)")
    return tensors


def _weight_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".pth", ".pt", ".ckpt"))


def _mistaken(path: Path) -> str:
    """What a file is that was taken for weights, of the usual mistakes; empty for none of them."""
    head = _head(path)
    if head.startswith(b"version https://git-lfs"):
        return "only a pointer to the file, as Git LFS leaves it: fetch the file itself (git lfs pull)"
    if head.lstrip().startswith(b"<"):
        return "a web page, not weights: the download went wrong"
    if path.suffix != ".safetensors" and head[8:10] == b'{"':
        return "safetensors by another name: let it end in .safetensors"
    return ""


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""


def _untied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each with memory of its own: pickles keep tied weights tied, safetensors does not take them."""
    seen: set[int] = set()
    result = {}
    for key, value in tensors.items():
        result[key] = value.clone() if value.data_ptr() in seen else value
        seen.add(value.data_ptr())
    return result


def _converted(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)


def _read_safetensors(path: Path, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    tensors = load_file(path)
    if all(_converted(value[:0] if value.ndim else value, dtype).dtype == value.dtype for value in tensors.values()):
        return tensors
    parts: list[list[str]] = [[]]
    size = 0
    for key, value in tensors.items():
        size += value.nbytes
        parts[-1].append(key)
        if size >= PART:
            parts.append([])
            size = 0
    del tensors
    result: dict[str, torch.Tensor] = {}
    for keys in parts:
        with safe_open(path, "pt") as file:  # opened anew, as its pages stay in memory until it is closed
            result |= {key: _converted(file.get_tensor(key), dtype) for key in keys}
    return {key: value.clone() if value.dtype != dtype else value for key, value in result.items()}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: if the file is missing or holds none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is no valid JSON ({first_line(error)})") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds no JSON object")
    return value
