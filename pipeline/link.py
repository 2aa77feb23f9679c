"""Link every noun phrase to regions with one linking method (links.jsonl)."""

from attention_atlas.stage import stage


@stage("link")
def main(cfg, stage):
    from hydra.utils import instantiate

    from attention_atlas.language.parse import read_parses
    from attention_atlas.linkers.links import write_links
    from attention_atlas.linkers.run import link_corpus
    from attention_atlas.vision.features_file import FeaturesFile

    corpus = instantiate(cfg.data.reader)
    parses = read_parses(stage.input(f"data/language/{cfg.data.name}.jsonl"))
    linker = instantiate(cfg.linker, device=stage.device)
    with FeaturesFile(stage.input(f"data/features/{cfg.data.name}.h5")) as features:
        links = link_corpus(parses, corpus, features, linker)
    write_links(stage.out(f"data/links/{cfg.data.name}/{cfg.linker.name}.jsonl"), links)
    stage.run.metrics({"linked phrases": sum(len(row.links) for row in links)})


if __name__ == "__main__":
    main()
