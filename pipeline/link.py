"""Link every noun phrase to regions with one linking method (links.jsonl)."""

from attention_atlas.workflow.stage import stage


@stage("link")
def main(cfg, job):
    from hydra.utils import instantiate

    from attention_atlas.language.links import write_links
    from attention_atlas.language.parse import read_parses
    from attention_atlas.linking.run import link_corpus
    from attention_atlas.regions.features_file import FeaturesFile

    corpus = instantiate(cfg.data.reader)
    parses = read_parses(job.input(cfg.paths.parses))
    linker = instantiate(cfg.linker, device=job.device)
    with FeaturesFile(job.input(cfg.paths.features)) as features:
        links = link_corpus(parses, corpus, features, linker)
    write_links(job.out(cfg.paths.links), links)
    job.run.metrics({"linked phrases": sum(len(row.links) for row in links)})


if __name__ == "__main__":
    main()
