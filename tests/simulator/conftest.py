"""What several files of this folder use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Program
from tests.endpoint import Endpoint
from tests.tenant import elsewhere, here, odd

__all__ = ["elsewhere", "here", "odd"]


@pytest.fixture
def endpoint(hikube: Program) -> Iterator[Endpoint]:
    made = Endpoint(hikube)
    yield made
    made.close()
