"""Generate one text per picture of the analysed split with a trained model (JSON lines)."""

from attention_atlas.workflow.stage import stage


@stage("generate")
def main(cfg, job):
    from hydra.utils import instantiate

    from attention_atlas.files import write_jsonl
    from attention_atlas.models.run_folder import load_run
    from attention_atlas.regions.features_file import FeaturesFile, with_regions
    from attention_atlas.workflow.paths import features_path, generated_path, model_path

    model, vocab, _ = load_run(job.input(model_path(cfg, cfg.model.name)), job.device)
    corpus = instantiate(cfg.data.reader)
    decoder = instantiate({k: v for k, v in cfg.decode.items() if k != "name"})
    with FeaturesFile(job.input(features_path(cfg))) as features:
        examples = with_regions(corpus, features).split(cfg.experiment.split)
        rows = list(decoder.rows(model, vocab, examples, features, job.device))
    write_jsonl(job.out(generated_path(cfg, cfg.model.name)), rows)
    job.run.metrics({"words per text": sum(row["words"] for row in rows) / len(rows)})


if __name__ == "__main__":
    main()
