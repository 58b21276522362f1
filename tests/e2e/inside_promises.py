"""Run by tests/e2e/test_promises.py inside its host: real machines are made where nothing of the real host is reached."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import TINY
from tests.promises import Promises


class TestQemu(Promises):
    backend = "qemu"

    @pytest.fixture
    def text(self) -> str:
        return TINY
