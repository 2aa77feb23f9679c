"""Metrics of several runs over the same texts and their differences: tables, examples, page of head views."""

from typing import Any

from attention_atlas.workflow.stage import stage


@stage("compare")
def main(cfg, job):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from attention_atlas.regions.features_file import FeaturesFile
    from attention_atlas.studies.modality.run import run_modality
    from attention_atlas.workflow.paths import attention_path, features_path, language_path, results_path

    experiment: Any = OmegaConf.to_container(cfg.experiment, resolve=True)
    with FeaturesFile(job.input(features_path(cfg)), check_values=False) as features:
        numbers = run_modality(
            {str(name): instantiate(entry) for name, entry in cfg.metrics.items()},
            experiment,
            job.input(attention_path(cfg)),
            job.input(language_path(cfg)),
            instantiate(cfg.data.reader),
            features,
            out=job.out(results_path(cfg)),
            data=cfg.data.name,
            seed=cfg.seed,
        )
    job.run.metrics(numbers)


if __name__ == "__main__":
    main()
