"""Describe the regions of every image: boxes, features, labels, attributes (features.h5)."""

from attention_atlas.workflow.stage import stage


@stage("features")
def main(cfg, job):
    from hydra.utils import instantiate

    from attention_atlas.regions.features_file import FeaturesFile

    corpus = instantiate(cfg.data.reader)
    source = instantiate(cfg.features)
    out = job.out(cfg.paths.features)
    source.extract(
        corpus,
        out=out,
        work=job.work(),
        device=job.device,
    )
    with FeaturesFile(out, check_values=False) as features:
        job.run.metrics({"images": len(features), "skipped images": len(features.skipped)})


if __name__ == "__main__":
    main()
