"""Train a model on a task, once or with every alignment and seed: the class in conf/trainer/<name>.yaml."""

from attention_atlas.workflow.stage import stage


@stage("train")
def main(cfg, job):
    from hydra.utils import instantiate

    job.run.metrics(instantiate(cfg.trainer)(cfg, job))


if __name__ == "__main__":
    main()
