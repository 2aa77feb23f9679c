"""Random sampling of one bird: its measurements, colours and position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attention_atlas.synthetic.birds.families import FAMILIES, Range
from attention_atlas.synthetic.birds.palette import BEAKS, EYES, FEATHERS, LEGS

# Ids of the parts in every scene: 0 is the whole bird, then these, then ground and background.
PARTS = ("back", "breast", "belly", "throat", "head", "crown", "beak", "wing", "tail", "legs", "eye")
IDS = {name: number for number, name in enumerate(("bird", *PARTS, "ground", "backdrop"))}
WING_PATTERNS, BREAST_PATTERNS = ("barred", "striped", "spotted"), ("striped", "spotted")
FLYING = "air"
FRAME = (0.72, 0.97)  # longer side of a bird as a fraction of the image's side


@dataclass(frozen=True)
class Bird:
    """Lengths in body lengths, angles in degrees."""

    family: str
    pitch: float
    girth: float
    neck: float
    neck_angle: float
    head: float
    beak: float
    beak_width: float
    legs: float
    tail: float
    colors: dict[str, str]  # part -> colour
    patterns: dict[str, tuple[str, str]]  # part -> pattern and its second colour; plain parts are absent
    ground: str
    backdrop: str
    share: float  # of the image's side
    side: int  # 1: looks to the right, -1: to the left
    yaw: float
    turn: float  # of the head, towards the viewer
    seed: int  # of leaves and clouds

    @property
    def flying(self) -> bool:
        return self.ground == FLYING

    def words(self, part: str) -> list[str]:
        """Visible attributes of a part: size or shape, colour, pattern."""
        low, high = (FRAME[0] + x * (FRAME[1] - FRAME[0]) for x in (0.3, 0.7))
        if part == "bird":
            return ["small"] if self.share < low else ["large"] if self.share > high else []
        length = {"beak": self.beak, "tail": self.tail, "legs": self.legs}.get(part)
        found: list[str] = []
        if length is not None:
            short, long = {"beak": (0.8, 1.4), "tail": (0.36, 0.56), "legs": (0.16, 0.5)}[part]
            found += ["short"] if length < short else ["long"] if length > long else []
        if part == "beak" and FAMILIES[self.family].bend > 0.3:
            found.append("hooked")
        found.append(self.colors[part])
        if part in self.patterns:
            found.append(self.patterns[part][0])
        return found


def sample_bird(rng: np.random.Generator) -> Bird:
    """Sample a bird, deterministically in the generator's state."""
    names = list(FAMILIES)
    weights = np.array([FAMILIES[n].weight for n in names])
    name = str(rng.choice(names, p=weights / weights.sum()))
    family = FAMILIES[name]

    def within(limits: Range) -> float:
        return round(float(rng.uniform(*limits)), 4)

    def one_of(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    ground = one_of(family.grounds)
    colors = sample_colors(rng)
    flying = ground == FLYING
    return Bird(
        family=name,
        pitch=within((0, 18)) if flying else within(family.pitch),
        girth=within(family.girth),
        neck=within(family.neck),
        neck_angle=within((20, 45)) if flying else within(family.neck_angle),
        head=within(family.head),
        beak=within(family.beak),
        beak_width=within(family.beak_width),
        legs=within(family.legs),
        tail=within(family.tail),
        colors=colors,
        patterns=sample_patterns(colors, rng),
        ground=ground,
        backdrop=one_of(("sky", "sky", "clouds") if flying else ("sky", "leaves", "leaves", "fog")),
        share=within(FRAME),
        side=1 if rng.random() < 0.5 else -1,
        yaw=within((-22, 22)),
        turn=within((-5, 30)),
        seed=int(rng.integers(2**31)),
    )


def sample_colors(rng: np.random.Generator) -> dict[str, str]:
    """{part: colour}. Neighbours often share a colour, as on real birds, but no part determines another."""

    def feather(*shared: tuple[str, float]) -> str:
        for part, chance in shared:
            if rng.random() < chance:
                return colors[part]
        return FEATHERS[int(rng.integers(len(FEATHERS)))]

    colors = {"back": FEATHERS[int(rng.integers(len(FEATHERS)))]}
    colors["breast"] = feather(("back", 0.15))
    colors["belly"] = feather(("breast", 0.55))
    colors["head"] = feather(("back", 0.45))
    colors["crown"] = feather(("head", 0.45))
    colors["throat"] = feather(("breast", 0.3), ("head", 0.25))
    colors["wing"] = feather(("back", 0.4))
    colors["tail"] = feather(("wing", 0.45))
    for part, options in (("beak", BEAKS), ("legs", LEGS), ("eye", EYES)):
        colors[part] = options[int(rng.integers(len(options)))]
    return colors


def sample_patterns(colors: dict[str, str], rng: np.random.Generator) -> dict[str, tuple[str, str]]:
    """Wings: white (on light wings black) bars, stripes or spots; breasts: dark or light marks."""
    found = {}
    for part, chance, options in (("wing", 0.4, WING_PATTERNS), ("breast", 0.2, BREAST_PATTERNS)):
        if rng.random() < chance:
            dark_mark = colors[part] in ("white", "yellow", "pink", "orange", "gray")
            found[part] = (options[int(rng.integers(len(options)))], "black" if dark_mark else "white")
    return found
