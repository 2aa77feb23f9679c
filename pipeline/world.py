"""Render a synthetic world: images, their annotated scenes, and texts about them."""

import os

from attention_atlas.workflow.stage import stage


@stage("world")
def main(cfg, job):
    from hydra.utils import instantiate

    from attention_atlas.synthetic.build import build_world

    build_world(
        instantiate(cfg.data.world),
        out=job.out(cfg.data.root),
        work=job.work(),
        sizes=dict(cfg.data.sizes),
        seed=cfg.seed,
        workers=cfg.workers or os.cpu_count() or 1,
    )


if __name__ == "__main__":
    main()
