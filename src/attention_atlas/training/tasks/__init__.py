"""What a study trains on and how it is judged: one file per task, chosen by `_target_` in conf/train/."""
