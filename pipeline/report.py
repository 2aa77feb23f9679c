"""One page for all studies: each paper number beside ours, tables, figures."""

from attention_atlas.stage import stage


@stage("report")
def main(cfg, stage):
    from pathlib import Path

    from attention_atlas.report.build import build_report
    from omegaconf import OmegaConf

    out = stage.out("results/report.html")
    build_report(OmegaConf.to_container(cfg.reports, resolve=True), Path("results"), out, profile=cfg.profile)
    stage.run.artifact(out)


if __name__ == "__main__":
    main()
