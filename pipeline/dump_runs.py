"""Capture attention of several runs over the same texts (data/attention/<experiment>/<run>/attention.h5)."""

from typing import Any

from attention_atlas.workflow.stage import stage


@stage("dump_runs")
def main(cfg, job):
    from pathlib import Path

    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from attention_atlas.dumps.runs import dump_runs
    from attention_atlas.regions.features_file import FeaturesFile, with_regions
    from attention_atlas.workflow.paths import attention_path, features_path, model_path
    from attention_atlas.workflow.stage import config_hash

    runs: Any = OmegaConf.to_container(cfg.experiment.runs, resolve=True)
    models = {run["model"]: job.input(model_path(cfg, run["model"])) for run in runs.values()}
    corpus = instantiate(cfg.data.reader)
    generated = job.input(cfg.data.reader.generated)
    features_file = job.input(features_path(cfg))
    with FeaturesFile(features_file, check_values=False) as features:
        numbers = dump_runs(
            runs,
            lambda name: Path(models[name]),
            with_regions(corpus, features),
            features,
            out=job.out(attention_path(cfg)),
            work=job.work([generated, features_file, *models.values()]),
            split=cfg.experiment.split,
            config_hash=config_hash(cfg),
            seed=cfg.seed,
            device=job.device,
        )
    job.run.metrics(numbers)


if __name__ == "__main__":
    main()
