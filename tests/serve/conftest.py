"""The server that most of these tests share."""

from collections.abc import Iterator

import pytest

from serve.serving import Server, serving, write_tool_model


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """penny, served with everything as it is by default."""
    with serving() as running:
        yield running


@pytest.fixture(scope="session")
def tooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """penny with a template that knows tools and a switch for thinking, under the name "tooled"."""
    with serving([write_tool_model(tmp_path_factory.mktemp("tooled"))]) as running:
        yield running
