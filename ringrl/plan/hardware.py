"""Peak rates of accelerators from public datasheets: dense bfloat16, one GPU, the larger form factor.

Links between nodes are assumed to be one network adapter per GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from ringrl.errors import ConfigError


@dataclass(frozen=True)
class Gpu:
    name: str
    tflops: float  # dense bfloat16, 1e12 FLOP/s
    bandwidth: float  # memory bandwidth, 1e9 bytes/s
    memory: float  # nominal size, 1e9 bytes
    link: float  # one-way bandwidth to a GPU of the same node, 1e9 bytes/s
    source: str = "datasheet"


NODE = 8  # assumption: GPUs per node
NETWORK = 50.0  # assumption: 1e9 bytes/s per GPU between nodes (a 400 Gb/s adapter)

GPUS = {
    "a100": Gpu("A100 SXM 80 GB", 312, 2039, 80, 300),
    "h100": Gpu("H100 SXM", 989, 3350, 80, 450),
    "h200": Gpu("H200 SXM", 989, 4800, 141, 450),
    "b200": Gpu("B200 SXM", 2250, 8000, 180, 900),
    "mi300x": Gpu("MI300X", 1307, 5300, 192, 448),
    "l40s": Gpu("L40S", 362, 864, 48, 32),
    "rtx4090": Gpu("RTX 4090", 165, 1008, 24, 32),
    "cpu": Gpu("a CPU of two cores, float32", 0.4, 25, 24, 10, "assumption"),
}


def find_gpu(name: str) -> Gpu:
    """Raises ConfigError for a name that is not in the table."""
    if name.lower() not in GPUS:
        raise ConfigError(f"--gpu: got {name!r}, expected one of {', '.join(GPUS)}")
    return GPUS[name.lower()]
