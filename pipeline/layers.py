"""Tables of the layer-wise study: attention by layer and question type, accuracy, importance of heads."""

from attention_atlas.workflow.stage import stage


@stage("layers")
def main(cfg, job):
    from hydra.utils import instantiate

    from attention_atlas.studies.vilt_layers.answers import majority, read_given
    from attention_atlas.studies.vilt_layers.head_file import read_heads
    from attention_atlas.studies.vilt_layers.layers import write_study
    from attention_atlas.studies.vilt_layers.shown import write_distribution, write_shown
    from attention_atlas.workflow.paths import attention_path, generated_path, results_path

    corpus = instantiate(cfg.data.reader)
    job.input(corpus.root)
    experiment, attention = cfg.experiment, job.input(attention_path(cfg))
    answers = {
        name: read_given(job.input(generated_path(cfg, name))) for name in (cfg.model.name, experiment.blind)
    }
    given = job.input(generated_path(cfg, cfg.model.name))
    answers[f"{cfg.model.name} (another picture)"] = read_given(given, "other")
    questions = corpus.split(experiment.split)
    for by in experiment.baselines:
        answers[f"majority ({by})"] = majority(corpus.split("train"), questions, by)
    metrics = instantiate(cfg.metrics, names={"experiment": experiment.name, "data": cfg.data.name})
    model = cfg.model.name
    frame = metrics(
        attention / "statistics.h5",
        answers,
        read_heads(job.input(f"data/generated/{experiment.name}/heads.npz")),
        corpus,
        model=model,
        split=experiment.split,
        seed=cfg.seed,
    )
    out = job.out(results_path(cfg))
    job.run.metrics(write_study(frame, out))
    write_distribution(metrics.distribution, out / "tables" / "distribution.json")
    write_shown(attention / "attention.h5", corpus, answers[model], out / "tables")


if __name__ == "__main__":
    main()
