"""What all rows share: certificates, upstreams, the collector, and how long everything takes."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import collector
import proxies
import upstream
from parts import CACHE_ROOT
from proxies import Ports, Proxy

RESULTS = CACHE_ROOT / "bench"


@dataclass
class World:
    """The parts that stay up during a run."""

    directory: Path
    pki: Path
    ports: Ports
    collector: collector.Sink
    quick: bool
    failed: bool = False

    def short(self, quick: float, full: float) -> float:
        """A duration or a count."""
        return quick if self.quick else full

    @property
    def rounds(self) -> int:
        """How often the proxies take turns."""
        return int(self.short(2, 5))

    @property
    def seconds(self) -> float:
        """How long one turn takes."""
        return self.short(1, 4)

    @contextmanager
    def three(self) -> Iterator[list[Proxy]]:
        """All three proxies, freshly started."""
        with ExitStack() as stack:
            start = (proxies.nginx, proxies.envoy, proxies.holdpoint)
            yield [stack.enter_context(each(self.directory, self.pki, self.ports)) for each in start]

    @contextmanager
    def holdpoints(self, variants: dict[str, dict[str, object]]) -> Iterator[list[Proxy]]:
        """Several gateways at once, each with options of its own; `otlp` may be among them."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(proxies.holdpoint(self.directory, self.pki, self.ports, name, **options))
                for name, options in variants.items()
            ]


@contextmanager
def world(quick: bool) -> Iterator[World]:
    """Starts the upstreams and the collector; after a failed row the logs stay."""
    directory = RESULTS / f"run-{os.getpid()}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    pki = proxies.issue(directory)
    with upstream.constants(directory) as port, upstream.streams(directory) as streams:
        with collector.sink(directory) as otlp:
            shared = World(directory, pki, Ports(port, streams, otlp.endpoint), otlp, quick)
            yield shared
    if not shared.failed:
        shutil.rmtree(directory, ignore_errors=True)
