"""An action that must be refused, in words that name what is wrong."""

from __future__ import annotations

import pytest

from hikube_local.errors import HikubeError


def refusal(action, *words: str) -> HikubeError:
    with pytest.raises(HikubeError) as e:
        action()
    text = e.value.render()
    for word in words:
        assert word in text, text
    return e.value
