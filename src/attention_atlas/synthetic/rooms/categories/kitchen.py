"""The contents of a kitchen."""

from attention_atlas.synthetic.rooms.categories.base import category

category(
    "kitchen",
    1.4,
    "checker tiles tiles planks",
    "white yellow green blue tiled beige gray",
    ("EAT", "COFFEE", "KITCHEN", "FRESH FOOD"),
    """
    open | window | | 0.7
    open | door | | 0.35
    against | stove
    against | fridge | | 0.9
    against | sink | | 0.85
    against | cabinet | | 0.8 | 1-2
    free | table | | 0.65
    around | chair | table | 0.95 | 2-4
    free | stool | | 0.25 | 1-2
    on | pot | stove | 0.75 | 1-2
    on | bowl | cabinet | 0.6
    on | bottle | cabinet | 0.5 | 1-2
    on | bowl | table | 0.5
    on | flowers | table | 0.35
    on | bottle | table | 0.4
    hang | shelf | | 0.6 | 1-2
    on | pot | shelf | 0.3
    on | bowl | shelf | 0.5 | 1-2
    on | bottle | shelf | 0.5 | 1-2
    hang | clock | | 0.5
    hang | sign | | 0.68
    hang | towel | | 0.4
    hang | painting | | 0.2
    ceiling | ceiling lamp | | 0.6 | 1-2
    corner | bin | | 0.5
    under | rug | | 0.2
    corner | plant | | 0.2
    free | basket | | 0.25
    """,
)
