"""Train a model on a task: weights, vocabulary, configuration and history in one folder."""

from attention_atlas.workflow.stage import stage


@stage("train")
def main(cfg, stage):
    from pathlib import Path

    from hydra.utils import instantiate

    from attention_atlas.training.processes import process_count, processes
    from attention_atlas.training.run import build_task, prepare_and_train, run_config
    from attention_atlas.workflow.paths import features_path, model_path
    from attention_atlas.workflow.sweeps import is_done, mark_done, passed_over

    path = model_path(cfg, cfg.model.name)
    out = stage.out(path)
    in_sweep = out != Path(path)
    if passed_over(cfg, in_sweep):
        return
    accumulate = run_config(cfg)[1]["loop"].get("accumulate", 1)
    count = process_count(accumulate, stage.device, 1 if stage.beside_others else cfg.workers)
    with processes(count) as together:  # they start while this one checks what it reads
        task = build_task(cfg)
        corpus = instantiate(cfg.data.reader)
        inputs = [stage.input(corpus.root), *map(stage.input, getattr(task, "inputs", []))]
        if getattr(task, "uses_features", True):
            inputs.append(stage.input(features_path(cfg)))
        work = stage.work(inputs)
        if is_done(out, work):
            return
        best = together(
            prepare_and_train,
            {"cfg": cfg, "work": work, "device": stage.device},
            {
                "task": task,
                "corpus": corpus,
                "out": out,
                "on_metrics": lambda step, values: stage.run.metrics(values, step),
            },
        )
    if in_sweep:
        mark_done(out, work)
    stage.run.metrics({f"best.{name}": value for name, value in best.items()})


if __name__ == "__main__":
    main()
