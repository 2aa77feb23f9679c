"""Words: names of objects, their plurals, names of rooms, parts of objects, numbers."""

from __future__ import annotations

LOW_SALIENCE = 0.6  # of objects whose kind sets none: the shell of the room

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")

# Names for every object of a label, in addition to those of its kind.
_MORE_NAMES: dict[str, tuple[str, ...]] = {
    "lamp": ("lamp", "table lamp"),
    "floor lamp": ("floor lamp", "lamp", "standing lamp"),
    "tv": ("tv", "television"),
    "ceiling lamp": ("lamp", "ceiling lamp"),
}

_PLURALS = {
    "shelf": "shelves",
    "bookshelf": "bookshelves",
    "wall shelf": "wall shelves",
    "box": "boxes",
    "couch": "couches",
    "bench": "benches",
    "toy box": "toy boxes",
    "chest of drawers": "chests of drawers",
}

ROOM_NAMES: dict[str, tuple[str, ...]] = {
    "living room": ("living room", "living room", "living room", "living area", "sitting room"),
    "bedroom": ("bedroom", "bedroom", "bedroom", "bed room"),
    "kitchen": ("kitchen", "kitchen", "kitchen", "kitchen area"),
    "dining room": ("dining room", "dining room", "dining area"),
    "office": ("office", "office", "office", "home office", "study"),
    "bathroom": ("bathroom", "bathroom", "bathroom", "bath room"),
    "nursery": ("nursery", "nursery", "baby room", "playroom"),
    "hallway": ("hallway", "hallway", "entryway"),
    "library": ("library", "library", "reading room"),
}

# Words for the part with the object's main colour; the phrase refers to the whole object.
PARTS: dict[str, tuple[str, ...]] = {
    "bed": ("cover", "blanket", "bedspread"),
    "lamp": ("shade", "lamp shade"),
    "floor lamp": ("shade", "lamp shade"),
}

# Objects that a mistaken describer may name although they do not exist: plausible anywhere.
MISSES: dict[str, tuple[str, ...]] = {
    "": (
        "clock",
        "fan",
        "phone",
        "remote control",
        "candle",
        "coat",
        "bag",
        "outlet",
        "light switch",
        "heater",
    ),
    "bathroom": ("shower", "toothbrush", "soap dispenser", "faucet", "shower curtain"),
    "kitchen": ("microwave", "dishwasher", "kettle", "toaster", "coffee maker", "faucet"),
    "bedroom": ("blanket", "alarm clock", "fan", "phone", "closet door"),
    "living room": ("remote control", "fan", "blanket", "candle", "guitar"),
    "dining room": ("candle", "tablecloth", "wine glass", "plate", "napkin"),
    "office": ("printer", "keyboard", "phone", "pencil holder", "file"),
}

# Misses that are never on furniture.
LARGE_MISSES = """
closet door; dishwasher; shower; shower curtain; fan; heater; outlet; coat; light switch; guitar; faucet
""".strip().split("; ")

VAGUE_ON = ("some things", "some small things", "various items", "a few objects", "some stuff", "something")


def names_of(label: str, words: tuple[str, ...] = ()) -> tuple[str, ...]:
    """All names of a label, the usual one first.

    >>> names_of("sofa", ("couch",))
    ('sofa', 'couch')
    """
    # Avoid "hanging lamp hanging from the ceiling".
    words = tuple(w for w in words if not w.startswith("hanging"))
    return tuple(dict.fromkeys((*_MORE_NAMES.get(label, (label,)), *words)))


def plural_of(noun: str) -> str:
    """The plural of a noun of the lexicon.

    >>> [plural_of(n) for n in ("chair", "bookshelf", "box", "nursery", "chest of drawers")]
    ['chairs', 'bookshelves', 'boxes', 'nurseries', 'chests of drawers']
    """
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def room_names(category: str) -> tuple[str, ...]:
    """The name of a room of this category; an unknown category is its own name."""
    return ROOM_NAMES.get(category, (category,))


def absent_names(category: str) -> tuple[str, ...]:
    return MISSES.get(category, ()) + MISSES[""]
