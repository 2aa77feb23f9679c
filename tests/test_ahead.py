"""The next item is prepared while the current one is in use, and nothing else changes."""

import threading

import pytest

from attention_atlas.regions.ahead import one_ahead


def test_items_keep_their_order_and_the_next_one_is_under_way():
    made, second = [], threading.Event()

    def items():
        for number in range(4):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    seen = []
    for item in one_ahead(items()):
        assert second.wait(10)  # item 1 is prepared although only 0 was requested
        seen.append(item)
        assert len(made) <= item + 2  # and not more than one ahead
    assert seen == [0, 1, 2, 3] and list(one_ahead([])) == []


def test_a_fault_comes_where_its_item_would():
    def items():
        yield 1
        raise ValueError("second")

    ahead = one_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="second"):
        next(ahead)
