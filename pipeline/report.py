"""One page for all studies: each paper number beside ours, tables, figures."""

from typing import Any

from attention_atlas.workflow.stage import stage


@stage("report")
def main(cfg, stage):
    from pathlib import Path

    from omegaconf import OmegaConf

    from attention_atlas.reporting.build import build_report

    out = stage.out("results/report.html")
    reports: Any = OmegaConf.to_container(cfg.reports, resolve=True)
    build_report(reports, Path("results"), out, profile=cfg.profile)
    stage.run.artifact(out)


if __name__ == "__main__":
    main()
