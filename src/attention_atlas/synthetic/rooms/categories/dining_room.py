"""The contents of a dining room."""

from attention_atlas.synthetic.rooms.categories.base import category

category(
    "dining room",
    1.1,
    "planks dark_planks tiles carpet",
    "white beige green red striped gray floral",
    ("EAT", "GATHER", "FAMILY"),
    """
    open | window | | 0.75 | 1-2
    drape | curtains | window | 0.5
    open | door | | 0.35
    free | table
    around | chair | table | 1.0 | 3-5
    against | cabinet | | 0.7 | 1-2
    against | fireplace | | 0.2
    under | rug | | 0.5
    on | flowers | table | 0.55
    on | bowl | table | 0.5
    on | bottle | table | 0.4 | 1-2
    on | vase | cabinet | 0.6
    on | lamp | cabinet | 0.5
    on | books | cabinet | 0.2
    hang | painting | | 0.8 | 1-3
    hang | mirror | | 0.3
    hang | clock | | 0.3
    hang | sign | | 0.34
    ceiling | chandelier | | 0.6
    ceiling | ceiling lamp | | 0.25
    corner | plant | | 0.5 | 1-2
    corner | floor lamp | | 0.25
    """,
)
