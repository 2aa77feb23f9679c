"""The contents of a living room."""

from attention_atlas.synthetic.rooms.categories.base import category

category(
    "living room",
    1.6,
    "planks planks carpet dark_planks",
    "white beige gray green blue striped brick",
    ("HOME", "LOVE", "RELAX", "FAMILY"),
    """
    open | window | | 0.8 | 1-2
    drape | curtains | window | 0.6
    open | door | | 0.25
    against | fireplace | | 0.3
    against | sofa
    against | sofa | | 0.2
    against | cabinet | | 0.6
    on | tv | cabinet | 0.8
    against | bookshelf | | 0.45
    before | coffee table | sofa | 0.8
    angled | armchair | | 0.6 | 1-2
    under | rug | | 0.7
    corner | floor lamp | | 0.5
    corner | plant | | 0.5 | 1-2
    beside | nightstand | sofa | 0.3
    on | lamp | nightstand | 0.7
    hang | painting | | 0.75 | 1-3
    hang | sign | | 0.41
    hang | clock | | 0.3
    on | vase | fireplace | 0.6
    on | flowers | coffee table | 0.45
    on | books | coffee table | 0.35
    on | bowl | coffee table | 0.3
    seat | pillow | sofa | 0.8 | 1-3
    seat | pillow | armchair | 0.3
    fill | books | bookshelf | 0.9 | 1-3
    ceiling | ceiling lamp | | 0.35
    free | basket | | 0.2
    free | ball | | 0.15
    """,
)
