"""Describe the regions of every picture: boxes, features, labels, attributes (features.h5)."""

from attention_atlas.workflow.stage import stage


@stage("features")
def main(cfg, stage):
    from hydra.utils import instantiate

    from attention_atlas.regions.features_file import FeaturesFile
    from attention_atlas.workflow.paths import features_path

    corpus = instantiate(cfg.data.reader)
    source = instantiate(cfg.features)
    out = stage.out(features_path(cfg))
    source.extract(
        corpus,
        out=out,
        work=stage.work([stage.input(corpus.root)]),
        device=stage.device,
    )
    with FeaturesFile(out, check_values=False) as features:
        stage.run.metrics({"images": len(features), "skipped images": len(features.skipped)})


if __name__ == "__main__":
    main()
