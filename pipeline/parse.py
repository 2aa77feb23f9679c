"""Words, parts of speech, dependencies, noun phrases and spatial relations (parse.jsonl)."""

from attention_atlas.workflow.stage import stage


@stage("parse")
def main(cfg, job):
    from hydra.utils import instantiate

    from attention_atlas.language.parse import parse_texts, write_parses

    examples = instantiate(cfg.data.reader).split(cfg.language.split)
    parses = parse_texts(
        [e.id for e in examples],
        [e.text for e in examples],
        model=cfg.language.model,
        nesting=cfg.language.nesting,
    )
    write_parses(job.out(cfg.paths.parses), parses)
    job.run.metrics(
        {
            "paragraphs": len(parses),
            "noun phrases per paragraph": sum(len(p.phrases) for p in parses) / max(len(parses), 1),
            "relations per paragraph": sum(len(p.relations) for p in parses) / max(len(parses), 1),
        }
    )


if __name__ == "__main__":
    main()
