"""Capture attention over questions: statistics of many (statistics.h5), full matrices of a few
(attention.h5).
"""

from attention_atlas.workflow.stage import stage


@stage("dump_questions")
def main(cfg, job):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from attention_atlas.dumps.dump import read_settings
    from attention_atlas.models.run_folder import load_run
    from attention_atlas.studies.vilt_layers.dump import dump_questions
    from attention_atlas.workflow.paths import attention_path, generated_path, model_path
    from attention_atlas.workflow.stage import config_hash

    corpus = instantiate(cfg.data.reader)
    folder = job.input(model_path(cfg, cfg.model.name))
    given = job.input(generated_path(cfg, cfg.model.name))
    model, vocab, config = load_run(folder, job.device)
    task = instantiate(cfg.capture.dump)
    task.prepare(corpus, None, vocab, config)
    found = dump_questions(
        task,
        model,
        read_settings(cfg.capture.settings),
        OmegaConf.to_container(cfg.experiment.shown),
        given,
        job.out(attention_path(cfg)),
        job.work([job.input(corpus.root), folder, given]),
        model_name=cfg.model.name,
        config_hash=config_hash(cfg),
        device=job.device,
        seed=cfg.seed,
    )
    job.run.metrics(found)


if __name__ == "__main__":
    main()
