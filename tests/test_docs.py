"""What the documentation names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = re.compile(r"`((?:\w+/)+(?:\w+\.(?:py|yaml|md))?)`")


def test_places_of_the_glossary_exist():
    named = set(PLACES.findall((ROOT / "docs" / "glossary.md").read_text()))
    assert len(named) > 20
    assert not [place for place in named if not any((root / place).exists() for root in (ROOT, ROOT / "src/ipbasis"))]
