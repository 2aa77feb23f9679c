"""One table of a study (captions, linkers, ...) as metric rows with intervals."""

from attention_atlas.workflow.stage import stage


@stage("table")
def main(cfg, job):
    from hydra.utils import instantiate

    from attention_atlas.measures.table import write_table
    from attention_atlas.workflow.paths import results_path

    table = instantiate(cfg.table)(cfg, job)
    write_table(job.out(f"{results_path(cfg)}/tables/{cfg.table.name}.csv"), table)
    rows = table.dropna(subset=["value"]).itertuples()
    job.run.metrics({f"{r.model} {r.metric} {r.condition}".strip(): r.value for r in rows})


if __name__ == "__main__":
    main()
