"""Compute the tables and metrics.json of a study, with the class in conf/metrics/<name>.yaml."""

from attention_atlas.workflow.stage import stage


@stage("metrics")
def main(cfg, job):
    from hydra.utils import instantiate

    job.run.metrics(instantiate(cfg.metrics)(cfg, job))


if __name__ == "__main__":
    main()
