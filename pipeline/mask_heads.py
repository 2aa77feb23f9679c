"""Accuracy and loss without each head, and as more and more heads are pruned (<experiment>/heads.npz)."""

from attention_atlas.workflow.stage import stage


@stage("mask_heads")
def main(cfg, job):
    from hydra.utils import instantiate

    from attention_atlas.models.run_folder import load_run
    from attention_atlas.studies.vilt_layers.head_file import mask_heads, save_heads
    from attention_atlas.workflow.paths import model_path

    corpus = instantiate(cfg.data.reader)
    job.input(corpus.root)
    folder = job.input(model_path(cfg, cfg.model.name))
    model, vocab, config = load_run(folder, job.device)
    found = mask_heads(
        model,
        corpus,
        vocab,
        config,
        folder,
        splits=(cfg.experiment.importance_split, cfg.experiment.split),
        examples=(cfg.experiment.importance_examples, cfg.experiment.pruned_examples),
        device=job.device,
        seed=cfg.seed,
    )
    save_heads(job.out(f"data/generated/{cfg.experiment.name}/heads.npz"), found)
    job.run.metrics({"accuracy": 100 * float(found["whole"][..., 0].mean())})


if __name__ == "__main__":
    main()
