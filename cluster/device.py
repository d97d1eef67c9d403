"""What a model runs on here: the processor's or accelerator's name, and whether it multiplies bfloat16 in hardware."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from cluster.machine import memory_bytes, usable_cores

PROCESSOR_FILE = Path("/proc/cpuinfo")
#: Flags of processors with bfloat16 dot products or tiles: x86 (AVX-512, AMX) and Arm.
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "avx10_2", "bf16"})


@dataclass(frozen=True)
class DeviceDescription:
    """A device as it names itself.

    Attributes:
        name: model name of the processor or accelerator.
        cores: cores this process may use, or multiprocessors of a GPU.
        memory_bytes: memory this process may use, or the GPU's.
        bfloat16: whether bfloat16 multiplication runs in hardware.
    """

    name: str
    cores: int
    memory_bytes: int
    bfloat16: bool


def describe_device(device: str = "cpu") -> DeviceDescription:
    """Describe ``device``: "cpu", or a CUDA device such as "cuda:0"."""
    import torch

    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return DeviceDescription(
            name=properties.name,
            cores=int(properties.multi_processor_count),
            memory_bytes=int(properties.total_memory),
            bfloat16=supports_bfloat16(device),
        )
    return DeviceDescription(processor_name(), usable_cores(), memory_bytes(), supports_bfloat16())


def processor_name(processor_file: Path = PROCESSOR_FILE) -> str:
    """Model name of this machine's processor, or its architecture where the system tells no name."""
    return _processor_fields(processor_file).get("model name") or platform.processor() or platform.machine()


def supports_bfloat16(device: str = "cpu", processor_file: Path = PROCESSOR_FILE) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware; elsewhere it works, but slower than float32."""
    import torch

    if torch.device(device).type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    fields = _processor_fields(processor_file)
    return bool(_BFLOAT16_FLAGS & set(fields.get("flags", fields.get("Features", "")).split()))


def _processor_fields(processor_file: Path) -> dict[str, str]:
    """The fields of the first processor in a file like /proc/cpuinfo; empty where there is none (macOS, Windows)."""
    try:
        first = processor_file.read_text(encoding="utf-8").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
