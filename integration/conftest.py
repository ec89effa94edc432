"""Fixtures: the real parts, the gateway among them, and the figures that a run prints last."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

sys.path.insert(0, str(Path(__file__).resolve().parent))

import parts  # noqa: E402
from gateway import Gateway  # noqa: E402
from visit import chromium  # noqa: E402

FIGURES: list[tuple[str, str]] = []
TABLES: list[str] = []
COUNTS = {"passed": 0, "failed": 0, "skipped": 0}

Figure = Callable[[str, object], None]


@pytest.fixture
def figure() -> Figure:
    """Keeps a figure for the end of the run, where it is printed as `name: value`."""

    def keep(name: str, value: object) -> None:
        FIGURES.append((name, str(value)))

    return keep


@pytest.fixture(scope="session")
def figure_table() -> Callable[[str], None]:
    """Keeps a line of a table for the end of the run, where tables stand before the figures."""
    return TABLES.append


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of a test module's own."""
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def everything(directory: Path) -> Iterator[parts.Upstream]:
    """The reference implementation's example server."""
    with parts.everything(directory) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def desk(directory: Path) -> Iterator[parts.Upstream]:
    """An MCP server with a support desk's tools, which writes down what was called."""
    with parts.desk(directory) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for a module."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def fastmcp(directory: Path) -> Iterator[parts.Upstream]:
    """A dual-era FastMCP server."""
    with parts.fastmcp(directory) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def recorder(directory: Path) -> Iterator[parts.Upstream]:
    """An HTTP API that writes down what it saw."""
    with parts.recorder(directory) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def nginx(directory: Path) -> Iterator[parts.Upstream]:
    """nginx as an HTTP API."""
    with parts.nginx(directory) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def collector(directory: Path) -> Iterator[parts.Collector]:
    """The official collector."""
    with parts.collector(directory) as running:
        yield running


@pytest.fixture(scope="module")
def run_gateway(directory: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways and stops them at the end of the module."""
    running: list[Gateway] = []

    def run(*upstreams: parts.Upstream, **options: object) -> Gateway:
        gateway = Gateway(directory / f"gateway{len(running)}", list(upstreams), **options)  # type: ignore[arg-type]
        running.append(gateway)
        return gateway.prepare().start()

    yield run
    for gateway in running:
        gateway.stop()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Counts each test once: a failing fixture is a failed test."""
    if report.when == "call" or report.outcome == "failed" or (report.when == "setup" and report.outcome == "skipped"):
        COUNTS[report.outcome] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the figures."""
    for line in TABLES:
        terminalreporter.write_line(line)
    for name, value in FIGURES:
        terminalreporter.write_line(f"{name}: {value}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The plain last line that a build reads."""
    if any(COUNTS.values()):
        skipped = f", {COUNTS['skipped']} skipped" if COUNTS["skipped"] else ""
        print(f"{COUNTS['passed']} passed, {COUNTS['failed']} failed{skipped}")
