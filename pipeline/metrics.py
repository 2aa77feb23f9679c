"""All metrics of a study in one pass over its attention: tables/metrics.csv and metrics.json."""

from attention_atlas.workflow.stage import stage


@stage("metrics")
def main(cfg, job):
    from hydra.utils import instantiate

    from attention_atlas.measures.analysed import read_study
    from attention_atlas.regions.features_file import FeaturesFile
    from attention_atlas.studies.grounding.run import headline, run_metrics
    from attention_atlas.workflow.paths import (
        attention_path,
        features_path,
        language_path,
        links_path,
        results_path,
    )

    metrics = {str(name): instantiate(entry) for name, entry in cfg.metrics.items()}
    with FeaturesFile(job.input(features_path(cfg)), check_values=False) as features:
        study = read_study(
            job.input(f"{attention_path(cfg)}/attention.h5"),
            job.input(language_path(cfg)),
            job.input(links_path(cfg, cfg.linker.name)),
            instantiate(cfg.data.reader),
            features,
            experiment=cfg.experiment.name,
            data=cfg.data.name,
            linker=cfg.linker.name,
            seed=cfg.seed,
        )
        results = results_path(cfg)
        table = run_metrics(
            metrics, study, job.out(f"{results}/tables/metrics.csv"), job.out(f"{results}/metrics.json")
        )
    job.run.metrics(headline(table))


if __name__ == "__main__":
    main()
