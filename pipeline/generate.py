"""Let a trained model write or answer: the class of conf/decode/<name>.yaml says what."""

from attention_atlas.workflow.stage import stage


@stage("generate")
def main(cfg, job):
    from hydra.utils import instantiate

    job.run.metrics(instantiate(cfg.decode)(cfg, job))


if __name__ == "__main__":
    main()
