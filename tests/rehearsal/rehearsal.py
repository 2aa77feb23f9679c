"""The copy of the repository that the rehearsal runs in: made-up data, parameters, environment."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from attention_atlas.workflow.manifests import Manifests
from attention_atlas.workflow.parallel import repro_side_by_side
from attention_atlas.workflow.profiles import apply_profile, copy_repository, set_params

from .clevr import write_clevr
from .corpora import (
    write_coco,
    write_coco_images,
    write_cub,
    write_flickr30k,
    write_stanford_paragraphs,
    write_tell_me_more,
    write_vqav2,
    write_winoground,
)
from .hub import write_hub
from .regions import write_vocabularies
from .textvqa import write_textvqa
from .weights import write_captioner, write_inception

ROOT = Path(__file__).resolve().parents[2]
# The only parameters besides `profile: paper`: how much is cut, and the machine.
LIMIT = {"steps": 2, "examples": 100, "batch": 2, "width": 24}
HUB = Path("data/raw/huggingface")  # HF_HOME
MADE = Path("data/raw/made.json")  # written last


def prepare(folder: Path) -> None:
    """Copy the repository to `folder`, set its parameters and write the data, unless it has them."""
    copy_repository(ROOT, folder)
    apply_profile(folder, "paper")
    set_params(folder, {"limit": LIMIT, "workers": 1, "device": {"default": "cpu"}})
    Manifests(folder).write_graph()
    if not (folder / MADE).exists():
        shutil.rmtree(folder / "data" / "raw", ignore_errors=True)
        write_data(folder / "data" / "raw", folder / HUB)
        (folder / MADE).write_text("{}")


def write_data(raw: Path, hub: Path) -> None:
    """What conf/paper_files.yaml names, below data/raw, and the hub's models."""
    write_vocabularies(raw / "bottom_up_attention")
    write_tell_me_more(raw / "tell_me_more")
    write_stanford_paragraphs(raw / "stanford_paragraphs")
    shown = write_coco(raw / "coco")
    write_coco_images(raw / "coco_images", raw / "coco", shown)
    write_vqav2(raw / "vqav2", shown)
    write_flickr30k(raw / "flickr30k")
    write_cub(raw / "cub")
    write_clevr(raw / "clevr" / "CLEVR_v1.0", raw / "clevr")
    write_textvqa(raw / "textvqa")
    write_winoground(raw / "winoground")
    images = json.loads((raw / "coco/dataset_coco.json").read_text())["images"]
    captions = {i["cocoid"]: [s["tokens"] for s in i["sentences"]] for i in images}
    questions = json.loads((raw / "vqav2/v2_OpenEnded_mscoco_train2014_questions.json").read_text())[
        "questions"
    ]
    write_captioner(raw / "object_relation_transformer", [(shown[n], captions[n]) for n in shown])
    write_inception(raw / "inception" / "weights-inception-2015-12-05.pth")
    write_hub(hub, [*(s["raw"] for i in images for s in i["sentences"]), *(q["question"] for q in questions)])


def environment(folder: Path) -> dict[str, str]:
    """Nothing is fetched: the hub is the cache in `folder`."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC", "PYTEST", "OMP"))
    }
    kept |= {"HF_HOME": str((folder / HUB).resolve()), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def rehearse(folder: Path, jobs: int = 0) -> int:
    """`prepare` and `dvc repro`; DVC's exit status."""
    prepare(folder)
    return repro_side_by_side(folder, environment(folder), jobs)
