"""Tables of the alignment study from all its cells: scores, differences, breakdowns, grounding, examples."""

from typing import Any

from attention_atlas.workflow.stage import stage


@stage("alignment_tables")
def main(cfg, job):
    from omegaconf import OmegaConf

    from attention_atlas.studies.alignment.cell import NONE
    from attention_atlas.studies.alignment.cells import cells_path
    from attention_atlas.studies.alignment.panel import read_panel
    from attention_atlas.studies.alignment.study import study_table, write_study
    from attention_atlas.workflow.paths import results_path

    wanted: Any = OmegaConf.to_container(cfg.experiment.panels, resolve=True)
    order = [str(name) for name in cfg.alignments]
    panels, blind = {}, []
    for name, panel in wanted.items():
        folder = job.input(cells_path(panel["model"], panel["data"]))
        panels[name] = read_panel(folder, order)
        if panel.get("blind"):
            blind.append(read_panel(job.input(cells_path(panel["blind"], panel["data"])), [NONE]))
    scores, lower = dict(cfg.experiment.score), list(cfg.experiment.lower)
    frame = study_table(
        list(panels.values()), blind, scores, cfg.experiment.reference, lower, cfg.experiment.name, cfg.seed
    )
    titles = {str(name): str(entry.title) for name, entry in cfg.alignments.items()}
    out = job.out(results_path(cfg))
    found = write_study(frame, panels, scores, titles, lower, out, cfg.experiment.examples, cfg.seed)
    job.run.metrics(found)


if __name__ == "__main__":
    main()
