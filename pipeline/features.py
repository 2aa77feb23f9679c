"""Describe the regions of every picture: boxes, features, labels, attributes (features.h5)."""

from attention_atlas.stage import stage


@stage("features")
def main(cfg, stage):
    from hydra.utils import instantiate

    from attention_atlas.paths import features_path

    corpus = instantiate(cfg.data.reader)
    source = instantiate(cfg.features)
    source.extract(
        corpus,
        out=stage.out(features_path(cfg)),
        work=stage.work([stage.input(corpus.root)]),
        device=stage.device,
    )


if __name__ == "__main__":
    main()
