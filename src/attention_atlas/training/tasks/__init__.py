"""Training tasks and their evaluation: one file per task, chosen by `_target_` in conf/train/."""
