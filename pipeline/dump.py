"""Run trained models and keep their attention: the class of conf/dump/<study>.yaml says of what."""

from attention_atlas.workflow.stage import stage


@stage("dump")
def main(cfg, job):
    from hydra.utils import instantiate

    job.run.metrics(instantiate(cfg.dump)(cfg, job))


if __name__ == "__main__":
    main()
