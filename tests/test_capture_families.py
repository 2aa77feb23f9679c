"""Every family of docs/families.md, against its own eager code; the page is what the checks find."""

import re

import pytest
from capture_families import FAMILIES
from family_checks import HEAD, PAGE, check

TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_equals_its_eager_code_and_its_line_of_the_table(name):
    assert check(name) in TEXT


def test_the_page_has_these_families_and_no_other():
    listed = re.findall(r"^\| ([\w.-]+) \| `", TEXT, re.MULTILINE)
    assert listed == list(FAMILIES) and len(listed) >= 30
    assert TEXT.startswith(HEAD)
