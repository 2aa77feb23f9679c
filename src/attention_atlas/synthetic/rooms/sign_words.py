"""The words on the signs of signed rooms, and those held out from training images.

Every fifth word in alphabetical order is held out: it occurs only in validation and test images, where a
model can only answer it by copying.
"""

from __future__ import annotations

import numpy as np

LONGEST = 8  # maximum number of letters that is readable in a small image
HELD_OUT = 5  # every n-th word is held out
TEXT_HIDDEN = 0.02  # maximum hidden fraction of a readable sign
TWO = 0.3  # fraction of signs with two words

_LIST = """
active album amber anchor angel apple april arrow artist atlas autumn bacon baker bakery banana bank
barber basil beach bells berry bicycle bingo bird biscuit bloom boat books bottle brave bread breeze
bridge bright bronze brush butter button cabin cactus cake camera camp candle canvas castle cellar cement
chance change charm cheese cherry chess cider cinema circus city clean client clinic closed cloud clover
coast cobalt comet copper coral corner cotton cream crown crystal dairy daisy dance danger dawn delta
dental desert diary diner dinner doctor dolphin double dragon drama eagle early earth east echo eleven
ember engine enjoy entry epic evening event fabric falcon farm feather fiesta finest fire first fish
flavor flight floral flower forest fossil fresh friday frozen fruit future galaxy garden garlic gentle
ginger giraffe glass glory golden grace grand granite grape green guest guide guitar habit harbor harvest
hazel heart helmet herbs hero honey hope horizon hotel house humble indigo island ivory jacket jasmine
jazz jelly jewel journey juice jungle junior kernel kettle kite label ladder lake lantern laser lemon
lesson letter library light lily linen lobby local lotus lucky lunch magic magnet mango maple marble
market meadow melody melon metal midday mint mirror modern monday moon morning motel museum music mystic
native nature needle nest nickel noble north novel oasis ocean olive onion opera orchid origin oven
oxygen palace panda paper parade park pasta peach pearl pepper phone piano picnic pilot pine pizza planet
plaza pocket polar police pony potato pretzel public puzzle quartz quick rabbit radio rain ranch recipe
record reef river robin rocket royal ruby rustic sage sailor salad salmon salon sandal saturn school
season secret select shadow shell sheriff shop silent silver simple smile smooth snack soccer solar south
spark spice spring square star station steam stone storm studio sugar summer sunday sunset super supply
swan system tango tavern taxi teacher temple tennis ticket tiger timber today tomato topaz travel
treasure tropic tulip tunnel turbo turtle twelve ultra unity urban valley vanilla velvet venus victory
village vintage violet violin visit volcano voyage waffle wagon walnut water welcome west whale wheat
wild willow window winner winter wisdom wonder yellow yoga zebra zenith zigzag
"""
WORDS = tuple(sorted(_LIST.split()))


def usable() -> list[str]:
    """The words that fit on a sign and are not colours, so that no answer is both a text and a colour."""
    colours = {"green", "yellow", "silver", "violet", "golden", "indigo", "ivory"}
    return [w for w in WORDS if len(w) <= LONGEST and w not in colours]


def held_out() -> set[str]:
    """The words held out from training images."""
    return set(usable()[::HELD_OUT])


def draw_text(rng: np.random.Generator, split: str, taken: set[str]) -> str:
    """Text of one sign in capitals: one or two words, none of them in `taken`.

    Training images get no held-out words; in others, half of the words are held out.
    """
    held = held_out()
    words = []
    for _ in range(2 if rng.random() < TWO else 1):
        unseen = split not in ("train", "extra") and rng.random() < 0.5
        left = [w for w in usable() if (w in held) == unseen and w not in taken and w not in words]
        words.append(left[int(rng.integers(len(left)))])
    return " ".join(words).upper()
