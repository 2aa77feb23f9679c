"""Train a model on a task: weights, vocabulary, configuration and history in one folder."""

from attention_atlas.workflow.stage import stage


@stage("train")
def main(cfg, job):
    from pathlib import Path

    from hydra.utils import instantiate

    from attention_atlas.training.processes import process_count, processes
    from attention_atlas.training.run import build_task, prepare_and_train, run_config
    from attention_atlas.workflow.paths import features_path, model_path
    from attention_atlas.workflow.sweeps import is_done, mark_done, passed_over

    path = model_path(cfg, cfg.model.name)
    out = job.out(path)
    in_sweep = out != Path(path)
    if passed_over(cfg, in_sweep):
        return
    accumulate = run_config(cfg)[1]["loop"].get("accumulate", 1)
    count = process_count(accumulate, job.device, 1 if job.beside_others else cfg.workers)
    with processes(count) as together:  # they start while this process checks its inputs
        task = build_task(cfg)
        corpus = instantiate(cfg.data.reader)
        inputs = [job.input(corpus.root), *map(job.input, getattr(task, "inputs", []))]
        if getattr(task, "uses_features", True):
            inputs.append(job.input(features_path(cfg)))
        work = job.work(inputs)
        if is_done(out, work):
            return
        best = together(
            prepare_and_train,
            {"cfg": cfg, "work": work, "device": job.device},
            {
                "task": task,
                "corpus": corpus,
                "out": out,
                "on_metrics": lambda step, values: job.run.metrics(values, step),
            },
        )
    if in_sweep:
        mark_done(out, work)
    job.run.metrics({f"best.{name}": value for name, value in best.items()})


if __name__ == "__main__":
    main()
