"""Let a trained model write: one text per picture of the analysed split (JSON lines)."""

from attention_atlas.workflow.stage import stage


@stage("generate")
def main(cfg, stage):
    from hydra.utils import instantiate

    from attention_atlas.files import write_jsonl
    from attention_atlas.models.run_folder import load_run
    from attention_atlas.regions.features_file import FeaturesFile, with_regions
    from attention_atlas.workflow.paths import features_path, generated_path, model_path

    model, vocab, _ = load_run(stage.input(model_path(cfg, cfg.model.name)), stage.device)
    corpus = instantiate(cfg.data.reader)
    decoder = instantiate({k: v for k, v in cfg.decode.items() if k != "name"})
    with FeaturesFile(stage.input(features_path(cfg))) as features:
        examples = with_regions(corpus, features).split(cfg.experiment.split)
        rows = list(decoder.rows(model, vocab, examples, features, stage.device))
    write_jsonl(stage.out(generated_path(cfg, cfg.model.name)), rows)
    stage.run.metrics({"words per text": sum(row["words"] for row in rows) / len(rows)})


if __name__ == "__main__":
    main()
