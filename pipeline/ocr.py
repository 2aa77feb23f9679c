"""Read the words in every picture: tokens, boxes and confidences, one line per picture."""

from attention_atlas.workflow.stage import stage


@stage("ocr")
def main(cfg, job):
    from hydra.utils import instantiate

    corpus = instantiate(cfg.data.reader)
    source = instantiate(cfg.ocr)
    inputs = [job.input(corpus.root), *map(job.input, getattr(source, "inputs", []))]
    images = cfg.data.get("images") or cfg.data.name
    source.extract(corpus, out=job.out(f"data/features/{images}_ocr.jsonl"), work=job.work(inputs))


if __name__ == "__main__":
    main()
