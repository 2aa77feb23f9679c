"""The parameters `limit` and `effort`, which change the sizes of a configuration.

`effort` multiplies the length of every training. `limit` reduces every size to a few steps, examples and
units. Both are applied once, in stage.run_stage, to the composed configuration, so that all stages of a
profile run within minutes with its own configuration files. The profile smoke is mini with a limit. A size
named in a list below is reduced to the limit if it is larger. All other numbers stay: rates, layers, heads,
vocabularies, image sizes and everything that a published file format fixes. tests/test_limit.py fails for a
number in conf/ that no list names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Globs over dotted paths in the composed configuration; `#` matches an index of a list.
# Seeds are repetitions; a variance needs two of them.
STEPS = (
    "study.seeds.*",
    "trainer.seeds.*",
    "*loop.max_steps",
    "*loop.epochs",
    "data.*.epochs",
    "*loop.schedule.warmup",
    "*net.epochs",
    "train.task.hardest_from",
)
EXAMPLES = (
    *("data.sizes.*", "data.subset", "data.reader.limit*", "data.reader.subset", "capture.dump.examples"),
    *("*task.judged", "*task.written"),
    *("*evaluator.judged", "*evaluator.choosing", "*evaluator.images"),
    *("*.samples.*", "dump.examples.#", "study.importance_examples", "study.pruned_examples"),
    *("metrics.images", "data.annotator.pairs"),
)
# Each of these takes as long as many examples: images that a full-size network generates and two others
# evaluate, passes with attention cut in every layer, norms of every head.
SLOW = ("data.attngan.judged", "*.samples.knockout", "*.samples.norm")
# What `effort` multiplies. Warm-ups keep their length.
LENGTHS = (
    *("*loop.max_steps", "*loop.epochs", "*task.first_epochs"),
    *("train.task.hardest_from", "train.task.projector_steps"),
)
# Sizes of training batches (the examples must fill several), and the length of a first phase in batches.
BATCHES = (
    "train.task.projector_steps",
    *("*task.batch_size", "*net.images_per_step", "*net.regions_per_image", "train.task.instructions"),
    *("*task.candidates", "*evaluator.candidates", "*task.turns", "*task.samples", "*task.joined"),
)
# Batches per update (on a CPU each in its own process); initial epochs on other texts; seeds of AttnGAN,
# whose networks have the published depth and are slow to train and evaluate.
SINGLE = ("*loop.accumulate", "*task.first_epochs", "study.seeds.attngan", "trainer.seeds.attngan")
# Here 0 means none; elsewhere in EXAMPLES it means all.
NONE = "*.samples.*"
WIDTHS = (
    *(
        "model.dim",
        "published.*.dim",
        "published.*.inner",
        "model.inner",
        "model.hidden",
        "model.pooled",
        "model.embedding",
        "model.word_dim",
    ),
    *("model.channels", "model.critic_channels", "model.noise", "model.condition", "model.image.channels"),
    *(
        "model.stem.#",
        "model.projection",
        "model.qformer_inner",
        "features.net.dim",
        "features.net.channels.#",
    ),
    *("data.attngan.channels", "data.attngan.critic_channels"),
    "*loop.schedule.dim",  # of the Noam learning rate: the model's width
)
KEPT = (
    # Without training, few large batches take less time than many small ones.
    *("decode.batch_size", "capture.dump.batch_size", "dump.batch_size", "*linker*.batch", "features.batch"),
    *("capture.shards", "capture.shard", "capture.actors", "capture.readers"),
    *("seed", "*.seed", "workers", "gpus", "*.workers", "*threads", "study.processes", "trainer.processes"),
    *("study.alignments", "trainer.alignments", "study.examples", "*evaluator.shown"),
    *("dump.images", "dump.width", "dump.stride", "published.*"),
    *("*loop.validate_every", "*loop.validate_steps", "*loop.betas.#", "*loop.lr", "*loop.lr_scales.*"),
    # Reducing these steps and epochs would save no time.
    *("*loop.schedule.every", "*loop.schedule.milestones.#", "data.scan.lower_after"),
    *("*loop.clip_*", "*loop.weight_decay", "*loop.eps", "*loop.schedule.factor"),
    # Layers, heads and what they attend to determine which figures exist.
    *("model*layers", "model*heads", "model.cross_every", "model.queries", "model.strides.#", "model.steps"),
    *("model.stages", "*.residuals", "model.max_length", "model.max_text", "train.task.steps"),
    # Sizes of images and their parts, and the model sizes that must match them.
    *(
        "*image_size",
        "*patch_size",
        "*task.patch",
        "*task.shorter",
        "*task.size",
        "*task.enlarged",
        "model.first",
        "model.image.si*",
    ),
    *(
        "features.net.crop",
        "features.size",
        "features.layers",
        "features.draws",
        "ocr.side",
        "ocr.longest",
        "data.reader.parts.*.images.#",
    ),
    # Words of a text, texts of an image, things of an image, and the vocabularies.
    *(
        "*max_words",
        "data.attngan.*words",
        "*longest",
        "*max_pieces",
        "*pieces",
        "*min_count",
        "*_min",
        "*_size",
        "decode.beam",
    ),
    *("data.reader.captions", "data.annotator.per_scene", "data.annotator.times", "train.task.objects"),
    "*task.texts",
    *("train.task.words", "*regions", "features.objects", "features.attributes", "features.dim"),
    *("features.first_class", "features.skip_damaged", "features.*_vocab", "data.world.*"),
    # Sizes of statistics: small numbers are meaningless and save little time.
    *("metrics.measures.*", "metrics.least", "*linkers.*.layer", "linker.layer"),
    *("model.gamma?", "*task.*_weight", "*task.naming", "train.task.rounds"),
    # Null or not a number.
    *(
        "alignment",
        "model.alignment",
        "model.training.features",
        "model.run_folder",
        "*evaluator.classifier",
        "features.revision",
        "features.boxes_folder",
    ),
    *(
        "data.reader.boxes",
        "data.reader.templates",
        "metrics.gold",
        "linker.file",
        "*task.grid",
        "model.evaluator.inception",
    ),
)
FIELDS = ("steps", "examples", "batch", "width")
LISTS = {
    "single": SINGLE,  # before `steps`, which has the other seeds
    "steps": STEPS,
    "batch": BATCHES,
    "slow": SLOW,
    "examples": EXAMPLES,
    "width": WIDTHS,
    "kept": KEPT,
}
SLOWER = 10  # SLOW examples are 1/SLOWER of the others
# The least common multiple of 4, 8 and 12 heads.
EVEN = 24


def longer(cfg: DictConfig) -> DictConfig:
    """`cfg` without the parameter `effort`, with the length of every training multiplied by it (at least 1).

    0 and null, which mean no bound, are kept. Raises ConfigError for an effort that is not above 0.
    """
    from omegaconf import open_dict

    with open_dict(cfg):
        effort = cfg.pop("effort", 1)
    if not effort > 0:
        raise ConfigError(f"params.yaml: effort: must be above 0, not {effort}")
    if effort == 1 or "train" not in cfg:
        return cfg
    _own_sections(cfg)
    for node, key, path in list(numbers(cfg)):
        if node[key] and any(fnmatchcase(path, pattern) for pattern in LENGTHS):
            node[key] = max(1, round(node[key] * effort))
    return cfg


def limited(cfg: DictConfig) -> DictConfig:
    """`cfg` without the parameter `limit`, with each size at most the limit. With `null` no size changes.

    0 and null, where they mean everything, also become the limit. Raises ConfigError for a number below 1, a
    width that heads do not divide, or a number that no list names.
    """
    from omegaconf import open_dict

    with open_dict(cfg):
        limit = cfg.pop("limit", None)
    if limit is None:
        return cfg
    for name in FIELDS:
        if limit[name] < 1:
            raise ConfigError(f"params.yaml: limit.{name}: must be at least 1, not {limit[name]}")
    if limit["width"] % EVEN:
        raise ConfigError(
            f"params.yaml: limit.width: {limit['width']} must be a multiple of {EVEN} for the heads"
        )
    most_of = {name: int(limit[name]) for name in FIELDS}
    most_of |= {"slow": max(2, most_of["examples"] // SLOWER), "single": 1}
    _own_sections(cfg)
    for node, key, path in list(numbers(cfg)):
        name = kind_of(path)
        if not name:
            raise ConfigError(
                f"conf: {path}: limit is set, but src/attention_atlas/workflow/limit.py does not say "
                "whether this is a size; name it there"
            )
        if name == "kept":
            continue
        most, value = most_of[name], node[key]
        if isinstance(value, bool | str):
            continue
        if value is None or value == 0:
            # A warm-up of 0 stays 0, a width is never 0, and an effort in epochs is at least one.
            everything = name == "examples" and not (value == 0 and fnmatchcase(path, NONE))
            node[key] = most if everything or path.endswith("max_steps") else value
        else:
            node[key] = min(value, most)
    if "train" in cfg:
        with open_dict(cfg):
            cfg.train.loop.max_steps = min(cfg.train.loop.get("max_steps") or limit["steps"], limit["steps"])
    return cfg


def kind_of(path: str) -> str:
    """The key in LISTS of the first list that matches a path, "" for none."""
    for name, patterns in LISTS.items():
        if any(fnmatchcase(path, pattern) for pattern in patterns):
            return name
    return ""


def _own_sections(cfg: Any) -> None:
    """Replace each section that is an interpolation by its own copy, so that its numbers can be reduced."""
    from omegaconf import DictConfig, ListConfig, OmegaConf

    for key in range(len(cfg)) if isinstance(cfg, ListConfig) else list(cfg):
        value = cfg[key]
        if isinstance(value, DictConfig | ListConfig | dict | list):  # plain ones come from a resolver
            if OmegaConf.is_interpolation(cfg, key):
                cfg[key] = (
                    OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
                )
            _own_sections(cfg[key])


def numbers(cfg: Any, path: Sequence[str] = ()) -> Iterator[tuple[Any, Any, str]]:
    """(node, key, dotted path) of each integer and null; interpolations are resolved."""
    from omegaconf import DictConfig, ListConfig

    if cfg is None:
        return
    keys = range(len(cfg)) if isinstance(cfg, ListConfig | list) else list(cfg)
    for key in keys:
        if not path and str(key) in ("reports", "figure", "device", "hydra", "paths", "inputs", "outputs"):
            continue
        place = [*path, "#" if isinstance(key, int) else str(key)]
        value = cfg[key]
        if isinstance(value, DictConfig | ListConfig | dict | list):
            yield from numbers(value, place)
        elif value is None or (isinstance(value, int) and not isinstance(value, bool)):
            yield cfg, key, ".".join(place)
