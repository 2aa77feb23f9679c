"""The stage `dump` for vision LLMs (pipeline/dump.py sends models with `task: vlm` here)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from attention_atlas.workflow.stage import Stage

TASK, EXPERIMENT = "vlm", "vlm_phases"


def with_experiment(cfg: DictConfig, conf: Path = Path("conf")) -> None:
    """Vision LLMs belong to one study: use its settings if the command line names only the model."""
    from omegaconf import OmegaConf, open_dict

    if cfg.experiment.name == EXPERIMENT:
        return
    with open_dict(cfg):
        cfg.experiment = OmegaConf.load(conf / "experiment" / f"{EXPERIMENT}.yaml")


def run_dump(cfg: DictConfig, job: Stage) -> dict[str, Any]:
    """Dump `cfg.model` over `cfg.data` into data/attention/vlm_phases/<model>-<data>."""
    from hydra.utils import instantiate

    from attention_atlas.models.vlm.load import load_vlm
    from attention_atlas.studies.vlm_phases.run import PhasesDump, dump_phases
    from attention_atlas.threads import cpu_threads
    from attention_atlas.workflow.paths import attention_path, model_path
    from attention_atlas.workflow.stage import config_hash

    with_experiment(cfg)
    settings = instantiate(cfg.experiment.dump)
    if not isinstance(settings, PhasesDump):
        raise ConfigError(
            f"conf/experiment/{cfg.experiment.name}.yaml: dump: is not a dump of a vision LLM; "
            f"run with experiment={EXPERIMENT}"
        )
    corpus = instantiate(cfg.data.reader)
    folder = job.input(model_path(cfg, cfg.model.name))
    inputs: list[str | Path] = [job.input(corpus.root), folder]
    if "layer" in cfg.data and Path(cfg.data.layer).is_file():
        inputs.append(job.input(cfg.data.layer))
    with cpu_threads(settings.threads):
        return dump_phases(
            load_vlm(folder, job.device),
            corpus,
            settings,
            job.out(f"{attention_path(cfg)}/{cfg.model.name}-{cfg.data.name}"),
            job.work(inputs),
            data=cfg.data.name,
            config_hash=config_hash(cfg),
            seed=cfg.seed,
        )
