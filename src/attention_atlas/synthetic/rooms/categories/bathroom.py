"""The contents of a bathroom."""

from attention_atlas.synthetic.rooms.categories.base import category

category(
    "bathroom",
    1.1,
    "tiles tiles checker",
    "tiled tiled white blue green yellow pink",
    ("WASH HANDS", "BATH", "TOILET", "NO SMOKING"),
    """
    open | window | | 0.5
    open | door | | 0.4
    against | bathtub | | 0.85
    against | sink | | 0.95
    over | mirror | sink | 0.8
    against | toilet | | 0.95
    against | cabinet | | 0.4
    on | bottle | cabinet | 0.6 | 1-2
    on | flowers | cabinet | 0.4
    hang | towel | | 0.8 | 1-2
    hang | shelf | | 0.45
    on | bottle | shelf | 0.7 | 1-3
    hang | painting | | 0.3
    hang | sign | | 0.54
    hang | clock | | 0.15
    under | rug | | 0.6
    corner | bin | | 0.45
    corner | plant | | 0.35
    free | stool | | 0.4
    free | basket | | 0.5
    ceiling | ceiling lamp | | 0.45
    """,
)
