"""Draw the figures of a study from its metric table (PNG and PDF)."""

from attention_atlas.workflow.stage import stage


@stage("plot")
def main(cfg, job):
    from attention_atlas.plotting.draw import draw_all

    out = job.out(f"{cfg.paths.results}/figures")
    table = job.input(f"{cfg.paths.tables}/metrics.csv")
    for path in draw_all(cfg.figure, table, out, workers=cfg.workers, profile=cfg.profile):
        if path.suffix == ".png":
            job.run.artifact(path)


if __name__ == "__main__":
    main()
