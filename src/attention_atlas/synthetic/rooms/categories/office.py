"""The contents of an office."""

from attention_atlas.synthetic.rooms.categories.base import category

category(
    "office",
    1.3,
    "carpet carpet planks tiles",
    "white gray beige blue green",
    ("MEETING ROOM", "OFFICE", "NO SMOKING", "OPEN", "WORK HARD"),
    """
    open | window | | 0.7 | 1-2
    open | door | | 0.5
    against | desk | | 1.0 | 1-2
    before | chair | desk | 0.95 | 1-2
    on | laptop | desk | 0.85 | 1-2
    on | lamp | desk | 0.5
    on | books | desk | 0.4
    against | bookshelf | | 0.7 | 1-2
    fill | books | bookshelf | 0.95 | 1-3
    against | cabinet | | 0.4
    on | box | cabinet | 0.5
    angled | armchair | | 0.35
    angled | chair | | 0.35 | 1-2
    free | table | | 0.15
    hang | sign | | 0.88
    hang | clock | | 0.55
    hang | painting | | 0.45 | 1-2
    hang | shelf | | 0.25
    on | books | shelf | 0.8
    corner | bin | | 0.6
    corner | plant | | 0.5
    corner | floor lamp | | 0.25
    free | box | | 0.5 | 1-3
    ceiling | ceiling lamp | | 0.4
    under | rug | | 0.3
    """,
)
