"""One place that turns a device parameter into a torch device name."""

from __future__ import annotations

from attention_atlas.errors import ConfigError


def resolve_device(wanted: str, stage: str = "") -> str:
    """'auto' takes the best device present (cuda, mps, cpu); any other must exist.

    Returns a name for torch.device. Raises ConfigError naming the parameter when the device is absent.
    """
    if wanted == "cpu":
        return wanted  # always there; the import below takes two seconds
    import torch

    parameter = f"device.{stage}" if stage else "device"
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    present[:0] = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if wanted == "auto":
        return present[0]
    name = "cuda:0" if wanted == "cuda" else wanted
    if name not in present:
        raise ConfigError(
            f"{parameter}: '{wanted}' is not on this machine; use auto or one of {', '.join(present)}"
        )
    return name
