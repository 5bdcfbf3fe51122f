"""Where to compute, and in which precision."""

import os
import platform

import torch

from addsr.errors import AddSRError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")  # Linux, Windows, CUDA
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """`auto`: CUDA, else MPS, else the CPU.

    Raises:
        AddSRError: if the device is unknown or not there.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if available[device]))
    kind = name.split(":")[0]
    if kind not in available:
        raise AddSRError(f"unknown device {name!r}; expected one of {', '.join(DEVICES)}")
    if not available[kind]:
        raise AddSRError(f"device {name!r} is not available on this machine; use --device cpu or auto")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise AddSRError(f"unknown device {name!r}; expected one of {', '.join(DEVICES)}") from error
    if kind == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise AddSRError(f"device {name!r} is not available; there are {torch.cuda.device_count()} CUDA devices")
    return device


def has_native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by the hardware; where it is emulated it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def only_emulates(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether half precision takes several times as long as float32: on x86 CPUs that have no instructions for it."""
    if device.type != "cpu" or dtype == torch.float32 or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return not (has_native_fp16() if dtype == torch.float16 else has_native_bf16(device))


def has_native_fp16() -> bool:
    """Whether a CPU computes float16 by AVX-512 or AMX, and PyTorch with it."""
    probe = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", bool)
    return bool(probe())


def fused_attention_is_fastest(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is nothing faster than PyTorch's fused attention: not for bfloat16 on a CPU that has it, but no AMX."""
    if device.type != "cpu" or dtype != torch.bfloat16 or not has_native_bf16(device):
        return True
    return getattr(torch.cpu, "_is_amx_tile_supported", bool)()


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto`: bf16 where it is native, else fp16 on CUDA, else fp32.

    Raises:
        AddSRError: for an unknown precision.
    """
    if name not in PRECISIONS:
        raise AddSRError(f"unknown precision {name!r}; expected one of {', '.join(PRECISIONS)}")
    if name != "auto":
        return _DTYPES[name]
    if has_native_bf16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is one of the ways in which devices say that their memory is full."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)


def set_threads(count: int | None) -> None:
    """Use `count` CPU threads; None for as many as there are cores that this process may run on."""
    if count is None:
        affinity = getattr(os, "sched_getaffinity", None)
        count = min(torch.get_num_threads(), len(affinity(0))) if affinity else torch.get_num_threads()
    torch.set_num_threads(count)
