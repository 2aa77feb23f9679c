"""From a device parameter to a torch device name."""

from __future__ import annotations

from attention_atlas.errors import ConfigError


def resolve_device(wanted: str, stage: str = "") -> str:
    """'auto' selects the best device available (cuda, mps, cpu); any other value must exist.

    Returns a name for torch.device. Raises ConfigError naming the parameter if the device is missing.
    """
    if wanted == "cpu":
        return wanted  # always available; avoids the slow import below
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
            f"{parameter}: '{wanted}' is not available; use auto or one of {', '.join(present)}"
        )
    return name
