"""What tests of commands share."""

from pathlib import Path

import pytest


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports whose pictures are empty files: drawing takes longer than all that such a test is about."""
    monkeypatch.setattr(
        "recipes.reporting.pictures._save", lambda figure, path: Path(path).write_bytes(b"\x89PNG")
    )
