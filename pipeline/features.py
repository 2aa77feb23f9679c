"""Describe the regions of every picture: boxes, features, labels, attributes (features.h5)."""

from attention_atlas.stage import stage


@stage("features")
def main(cfg, stage):
    from hydra.utils import instantiate

    corpus = instantiate(cfg.data.reader)
    source = instantiate(cfg.features)
    source.extract(
        corpus,
        out=stage.out(f"data/features/{cfg.data.name}.h5"),
        work=stage.work([stage.input(corpus.root)]),
        device=stage.device,
    )


if __name__ == "__main__":
    main()
