"""Run a trained model over the examples and save its attention (attention.h5, statistics.h5)."""

from attention_atlas.workflow.stage import stage


@stage("dump")
def main(cfg, job):
    import logging

    from hydra.utils import instantiate

    if cfg.model.get("task") == "vlm":
        from attention_atlas.studies.vlm_phases.stage import run_dump

        job.run.metrics(run_dump(cfg, job))
        return

    from attention_atlas.dumps.dump import dump, read_settings
    from attention_atlas.models.run_folder import load_run
    from attention_atlas.regions.features_file import FeaturesFile, with_regions
    from attention_atlas.workflow.paths import attention_path, features_path, model_path
    from attention_atlas.workflow.stage import config_hash

    # Log which back end each kind uses, and why.
    logging.basicConfig(format="%(message)s")
    logging.getLogger("attention_atlas.capture").setLevel(logging.INFO)
    corpus = instantiate(cfg.data.reader)
    features_file = job.input(features_path(cfg))
    run_folder = job.input(model_path(cfg, cfg.model.name))
    model, vocab, config = load_run(run_folder, job.device)
    task = instantiate(cfg.capture.dump)
    with FeaturesFile(features_file) as features:
        task.prepare(with_regions(corpus, features), features, vocab, config)
        found = dump(
            task,
            model,
            read_settings(cfg.capture.settings),
            job.out(attention_path(cfg)),
            job.work([job.input(corpus.root), features_file, run_folder]),
            model_name=cfg.model.name,
            config_hash=config_hash(cfg),
            device=job.device,
        )
    job.run.metrics(found)


if __name__ == "__main__":
    main()
