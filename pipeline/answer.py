"""Answers of a trained model to the questions of a split (data/generated/<experiment>/<model>.jsonl)."""

from attention_atlas.stage import stage


@stage("answer")
def main(cfg, stage):
    from hydra.utils import instantiate

    from attention_atlas.files import write_jsonl
    from attention_atlas.paths import generated_path, model_path
    from attention_atlas.training.run import load_run
    from attention_atlas.vqa.answer import answer_split, score

    corpus = instantiate(cfg.data.reader)
    stage.input(corpus.root)
    folder = stage.input(model_path(cfg, cfg.model.name))
    model, vocab, config = load_run(folder, stage.device)
    rows = answer_split(model, corpus, cfg.experiment.split, vocab, config, folder, stage.device)
    write_jsonl(stage.out(generated_path(cfg, cfg.model.name)), rows)
    stage.run.metrics(score(rows, corpus))


if __name__ == "__main__":
    main()
