"""The contents of a nursery."""

from attention_atlas.synthetic.rooms.categories.base import category

category(
    "nursery",
    1.0,
    "planks carpet",
    "pink blue yellow green white dotted striped",
    ("PLAY", "BABY", "ABC", "DREAM"),
    """
    open | window | | 0.75
    drape | curtains | window | 0.6
    open | door | | 0.25
    against | crib
    against | dresser | | 0.7
    on | lamp | dresser | 0.6
    on | teddy bear | dresser | 0.4
    against | bookshelf | | 0.45
    fill | books | bookshelf | 0.9 | 1-2
    angled | armchair | | 0.5
    seat | pillow | armchair | 0.4
    under | rug | | 0.85
    free | box | | 0.6 | 1-2
    inside | ball | box | 0.6
    free | basket | | 0.4
    inside | ball | basket | 0.5
    inside | teddy bear | basket | 0.4
    free | ball | | 0.8 | 1-3
    free | teddy bear | | 0.8 | 1-2
    hang | painting | | 0.7 | 1-2
    hang | sign | | 0.68
    hang | clock | | 0.2
    hang | shelf | | 0.3
    on | books | shelf | 0.7
    ceiling | ceiling lamp | | 0.5
    corner | plant | | 0.2
    """,
)
