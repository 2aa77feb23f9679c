"""Render an embedded world: pictures, what is in them, texts about them."""

import os

from attention_atlas.stage import stage


@stage("world")
def main(cfg, stage):
    from attention_atlas.worlds.build import build_world
    from hydra.utils import instantiate

    build_world(
        instantiate(cfg.data.world),
        out=stage.out(cfg.data.root),
        work=stage.work([]),
        sizes=dict(cfg.data.sizes),
        seed=cfg.seed,
        workers=cfg.workers or os.cpu_count(),
    )


if __name__ == "__main__":
    main()
