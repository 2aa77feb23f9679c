"""A rehearsal of `profile: paper`: tiny made-up corpora and checkpoints in every published layout.

    PYTHONPATH=tests python -m rehearsal .work/paper-rehearsal

copies the repository there, writes what conf/paper_files.yaml names and the hub models of conf/, and runs
`dvc repro` on the paper profile with its own configuration files, cut by the parameter `limit`.
"""
