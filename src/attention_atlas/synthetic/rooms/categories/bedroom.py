"""The contents of a bedroom."""

from attention_atlas.synthetic.rooms.categories.base import category

category(
    "bedroom",
    1.5,
    "planks carpet carpet dark_planks",
    "white beige blue pink green purple striped floral",
    ("DREAM", "SLEEP", "LOVE"),
    """
    open | window | | 0.8
    drape | curtains | window | 0.7
    open | door | | 0.3
    against | bed
    beside | nightstand | bed | 0.85 | 1-2
    on | lamp | nightstand | 0.85 | 1-2
    against | wardrobe | | 0.5
    against | dresser | | 0.5
    on | tv | dresser | 0.3
    on | vase | dresser | 0.3
    against | desk | | 0.25
    before | chair | desk | 0.8
    on | laptop | desk | 0.6
    under | rug | | 0.6
    seat | pillow | bed | 0.95 | 1-3
    seat | teddy bear | bed | 0.2
    hang | painting | | 0.6 | 1-2
    hang | mirror | | 0.35
    hang | sign | | 0.34
    hang | clock | | 0.2
    hang | shelf | | 0.25
    on | books | shelf | 0.8
    angled | armchair | | 0.25
    corner | plant | | 0.35
    corner | floor lamp | | 0.25
    ceiling | ceiling lamp | | 0.45
    free | basket | | 0.25
    free | bench | | 0.15
    free | box | | 0.15
    """,
)
