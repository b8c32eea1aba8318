"""The workers of a system, more or fewer of them."""

from deploy.local.supervisor import Program
from deploy.local.system import System


class Fleet:
    """As many workers as are asked for.

    Args:
        system: whose workers there are to begin with; its supervisor keeps the others too.
    """

    def __init__(self, system: System) -> None:
        self._supervisor = system.supervisor
        self._environ = system.environ
        self._workers: list[Program] = list(system.workers)
        self._begun = len(self._workers)

    @property
    def size(self) -> int:
        """How many there are, those that are leaving not counted."""
        return len(self._workers)

    def scale(self, workers: int) -> None:
        """Begin workers, or dismiss the youngest, until there are so many."""
        while self.size < workers:
            self._begin()
        while self.size > workers:
            self._dismiss(self._workers.pop())

    def _begin(self) -> None:
        self._begun += 1
        name = f"worker {self._begun}"
        self._workers.append(self._supervisor.start(name, "worker", environ=self._environ))

    def _dismiss(self, worker: Program) -> None:
        """Let one leave by SIGTERM, which it understands once it has started."""
        worker.wait_for("worker_started")
        self._supervisor.dismiss(worker)
