"""The configuration of a worker, which makes the plan of a run again in its own process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from posbench.bench.resolve import resolve_config
from posbench.plugin.registry import load_registry

if TYPE_CHECKING:
    from posbench.bench.config import RunConfig
    from posbench.bench.plan import Plan


@dataclass(frozen=True)
class WorkerConfig:
    """The configuration from which a worker makes the plan: the `config` of `RunOptions`.

    In the process that planned the run it holds that plan, too. A pickled copy does not: the process that loads it
    plans again with the components, weights and images that it has.

    Attributes:
        run_config: the configuration, with the device and the precision resolved.
        planned: the plan and the device (`cpu` or `cuda`), or None.
    """

    run_config: RunConfig
    planned: tuple[Plan, str] | None = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[type[WorkerConfig], tuple[RunConfig]]:
        return WorkerConfig, (self.run_config,)

    def plan(self) -> tuple[Plan, str]:
        """Return the plan and the device.

        Raises:
            UsageError, ComponentError, MissingError: if something that the configuration names is missing here.
        """
        if self.planned:
            return self.planned
        resolved = resolve_config(self.run_config, load_registry(), download=False)
        return resolved.plan(), resolved.device
