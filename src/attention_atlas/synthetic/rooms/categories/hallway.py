"""The contents of a hallway."""

from attention_atlas.synthetic.rooms.categories.base import category

category(
    "hallway",
    0.9,
    "planks tiles checker dark_planks",
    "white beige gray yellow green brick striped",
    ("WELCOME", "EXIT", "PRIVATE", "NO DOGS", "PUSH"),
    """
    open | door | | 1.0 | 1-3
    open | window | | 0.3
    against | bench | | 0.6
    against | cabinet | | 0.6
    on | vase | cabinet | 0.5
    on | flowers | cabinet | 0.4
    on | lamp | cabinet | 0.5
    against | wardrobe | | 0.35
    against | chair | | 0.4 | 1-2
    hang | mirror | | 0.6
    hang | painting | | 0.6 | 1-3
    hang | sign | | 0.9 | 1-2
    hang | clock | | 0.4
    under | rug | | 0.7
    corner | plant | | 0.6 | 1-2
    corner | floor lamp | | 0.35
    free | box | | 0.35 | 1-2
    free | basket | | 0.25
    free | ball | | 0.2
    ceiling | ceiling lamp | | 0.6
    ceiling | chandelier | | 0.2
    """,
)
