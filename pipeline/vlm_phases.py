"""Metrics of the phases of vision LLMs from their dumps: tables, phases, and samples for figures."""

from attention_atlas.workflow.stage import stage


@stage("vlm_phases")
def main(cfg, job):
    from hydra.utils import instantiate

    from attention_atlas.studies.vlm_phases.tables import write_study
    from attention_atlas.workflow.paths import attention_path, results_path

    experiment = cfg.experiment
    wanted = [(model, data) for data in [*experiment.data, *experiment.order] for model in experiment.models]
    folders = [job.input(f"{attention_path(cfg)}/{model}-{data}") for model, data in wanted]
    frame, shown = instantiate(cfg.metrics)(folders, experiment.name, cfg.seed)
    job.run.metrics(write_study(frame, shown, job.out(results_path(cfg))))


if __name__ == "__main__":
    main()
