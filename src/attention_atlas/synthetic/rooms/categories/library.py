"""The contents of a library."""

from attention_atlas.synthetic.rooms.categories.base import category

category(
    "library",
    0.8,
    "carpet planks dark_planks",
    "beige green red white gray brown",
    ("QUIET PLEASE", "READ", "LIBRARY"),
    """
    open | window | | 0.6 | 1-2
    open | door | | 0.3
    against | bookshelf | | 1.0 | 2-4
    fill | books | bookshelf | 1.0 | 3-6
    against | fireplace | | 0.25
    on | vase | fireplace | 0.6
    free | table | | 0.5
    around | chair | table | 0.9 | 1-3
    on | books | table | 0.7
    on | lamp | table | 0.6
    angled | armchair | | 0.8 | 1-2
    against | desk | | 0.3
    before | chair | desk | 0.8
    on | lamp | desk | 0.6
    under | rug | | 0.7
    hang | painting | | 0.5 | 1-2
    hang | sign | | 0.74
    hang | clock | | 0.4
    corner | floor lamp | | 0.5
    corner | plant | | 0.4
    ceiling | chandelier | | 0.35
    free | box | | 0.2
    free | stool | | 0.25
    """,
)
