"""Link every noun phrase to regions with one linking method (links.jsonl)."""

from attention_atlas.workflow.stage import stage


@stage("link")
def main(cfg, job):
    from hydra.utils import instantiate

    from attention_atlas.language.links import write_links
    from attention_atlas.language.parse import read_parses
    from attention_atlas.linking.run import link_corpus
    from attention_atlas.regions.features_file import FeaturesFile
    from attention_atlas.workflow.paths import features_path, language_path, links_path

    corpus = instantiate(cfg.data.reader)
    parses = read_parses(job.input(language_path(cfg)))
    linker = instantiate(cfg.linker, device=job.device)
    with FeaturesFile(job.input(features_path(cfg))) as features:
        links = link_corpus(parses, corpus, features, linker)
    write_links(job.out(links_path(cfg, cfg.linker.name)), links)
    job.run.metrics({"linked phrases": sum(len(row.links) for row in links)})


if __name__ == "__main__":
    main()
