"""The number of torch's threads within a stage."""

from __future__ import annotations

import pytest
import torch

from attention_atlas.threads import cpu_threads


def test_threads_are_as_asked_and_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with cpu_threads(2):
            assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), cpu_threads(1):
            assert torch.get_num_threads() == 1
            raise KeyError
        with cpu_threads(0):
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
