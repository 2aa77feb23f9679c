"""Run trained models and store their attention, with the class in conf/dump/<study>.yaml."""

from attention_atlas.workflow.stage import stage


@stage("dump")
def main(cfg, job):
    from hydra.utils import instantiate

    job.run.metrics(instantiate(cfg.dump)(cfg, job))


if __name__ == "__main__":
    main()
