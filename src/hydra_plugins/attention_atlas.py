"""Hydra takes plugins from the package `hydra_plugins` only. It has no `__init__.py`: launchers share it."""

from attention_atlas.workflow.sweeper import ResumableSweeper


class Sweep(ResumableSweeper):
    """The sweeper of conf/hydra/sweeper/resumable.yaml."""
