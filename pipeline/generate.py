"""Generate texts or answers with a trained model, with the class in conf/decode/<name>.yaml."""

from attention_atlas.workflow.stage import stage


@stage("generate")
def main(cfg, job):
    from hydra.utils import instantiate

    job.run.metrics(instantiate(cfg.decode)(cfg, job))


if __name__ == "__main__":
    main()
