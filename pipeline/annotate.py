"""Write a text layer over a world's images: captions, questions, ... (Examples, one per line)."""

from attention_atlas.workflow.stage import stage


@stage("annotate")
def main(cfg, job):
    from pathlib import Path

    from hydra.utils import instantiate

    annotator = instantiate(cfg.data.annotator)
    annotator(Path(job.input(cfg.data.root)), out=job.out(cfg.data.layer), seed=cfg.seed)


if __name__ == "__main__":
    main()
