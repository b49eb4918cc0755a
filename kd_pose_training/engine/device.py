"""Device, number format and memory layout of a run."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Numerics:
    """How a network is computed: device, autocast type (None = float32) and layout."""

    device: torch.device
    autocast: torch.dtype | None
    memory_format: torch.memory_format

    def context(self) -> torch.autocast:
        """Autocast context; does nothing in float32."""
        return torch.autocast(self.device.type, self.autocast or torch.bfloat16,
                              enabled=self.autocast is not None)

    @property
    def description(self) -> str:
        layout = "channels last" if self.memory_format == torch.channels_last else "contiguous"
        return f"{self.device}, {str(self.autocast or torch.float32)[6:]}, {layout}"


def choose_numerics(device: str, precision: str, channels_last: bool,
                    local_rank: int = 0) -> Numerics:
    """Resolve ``auto`` settings for this machine.

    ``auto`` precision is bf16 where hardware computes it (recent GPUs, CPUs with AMX or
    AVX512-BF16), fp16 on older GPUs, else fp32. fp16 needs a GPU: CPUs only emulate it.

    Raises:
        ValueError: unknown or absent device, or fp16 without a GPU.
    """
    where = _device(device, local_rank)
    if precision == "auto":
        precision = _fast_precision(where)
    if precision == "fp16" and where.type != "cuda":
        raise ValueError(f"trainer.precision fp16 needs a GPU, the device is {where}; "
                         "allowed here: auto, fp32, bf16")
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return Numerics(where, dtype, layout)


def _device(device: str, local_rank: int) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"trainer.device is {device!r}; allowed: auto, cpu, cuda, cuda:N"
                         ) from error
    if where.type not in ("cpu", "cuda"):
        raise ValueError(f"trainer.device is {device!r}; allowed: auto, cpu, cuda, cuda:N")
    if where.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"trainer.device is {device!r}, but torch sees no GPU here")
        where = torch.device("cuda", local_rank if where.index is None else where.index)
        if where.index >= torch.cuda.device_count():
            raise ValueError(f"trainer.device is {device!r}; this machine has "
                             f"{torch.cuda.device_count()} GPUs")
    return where


def _fast_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    found = any(getattr(torch.cpu, name)() for name in probes if hasattr(torch.cpu, name))
    return "bf16" if found else "fp32"
