"""One page for all studies: the papers' numbers next to ours, tables, figures."""

from typing import Any

from attention_atlas.workflow.stage import stage


@stage("report")
def main(cfg, job):
    from pathlib import Path

    from omegaconf import OmegaConf

    from attention_atlas.reporting.build import build_report, plain

    out = job.out("results/report.html")
    reports: Any = OmegaConf.to_container(cfg.reports, resolve=True)
    reports |= {name: plain(name, Path("results")) for name in cfg.plain}
    for study, numbers in build_report(reports, Path("results"), out, profile=cfg.profile).items():
        job.run.summary(study, numbers)
    job.run.artifact(out)


if __name__ == "__main__":
    main()
