"""Train and evaluate one model on one data set under every alignment and seed (data/cells/<model>_<data>)."""

from attention_atlas.workflow.stage import stage


@stage("cells")
def main(cfg, job):
    import os
    from pathlib import Path

    from attention_atlas.studies.alignment.cells import cells_path, plan, run_cells
    from attention_atlas.studies.alignment.log import log_cell
    from attention_atlas.training.run import build_task
    from attention_atlas.workflow.paths import features_path

    cells, passed_over = plan(cfg)
    if passed_over:
        print(f"skipped: {passed_over}")
    task = build_task(cfg)
    inputs = [cfg.data.root, *getattr(task, "inputs", [])]
    layer = str(cfg.data.get("layer", ""))
    if layer.endswith(".jsonl"):
        inputs.append(layer)
    if getattr(task, "uses_features", True):
        inputs.append(features_path(cfg))
    run_cells(
        cfg,
        cells,
        job.work(map(job.input, inputs)),
        job.out(cells_path(cfg.model.name, cfg.data.name)),
        device=job.device,
        processes=cfg.experiment.processes or cfg.workers or os.cpu_count() or 1,
        on_cell=lambda *found: log_cell(Path.cwd(), job.run, cfg, *found),
    )


if __name__ == "__main__":
    main()
