"""Read the words in every image: tokens, boxes and confidences, one line per image."""

from attention_atlas.workflow.stage import stage


@stage("ocr")
def main(cfg, job):
    from hydra.utils import instantiate

    corpus = instantiate(cfg.data.reader)
    source = instantiate(cfg.ocr)
    source.extract(corpus, out=job.out(cfg.paths.scene_text), work=job.work())


if __name__ == "__main__":
    main()
