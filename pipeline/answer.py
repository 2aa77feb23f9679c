"""Answers of a trained model to the questions of a split (data/generated/<experiment>/<model>.jsonl)."""

from attention_atlas.workflow.stage import stage


@stage("answer")
def main(cfg, job):
    from hydra.utils import instantiate

    from attention_atlas.files import write_jsonl
    from attention_atlas.models.run_folder import load_run
    from attention_atlas.studies.vilt_layers.answers import answer_split, score
    from attention_atlas.workflow.paths import generated_path, model_path

    corpus = instantiate(cfg.data.reader)
    job.input(corpus.root)
    folder = job.input(model_path(cfg, cfg.model.name))
    model, vocab, config = load_run(folder, job.device)
    rows = answer_split(model, corpus, cfg.experiment.split, vocab, config, folder, job.device)
    write_jsonl(job.out(generated_path(cfg, cfg.model.name)), rows)
    job.run.metrics(score(rows, corpus))


if __name__ == "__main__":
    main()
