"""Prepare sources on many machines with Ray Data: sources are rows, mapped by `prepare_source`.

All machines must see the source and the work folder under the same paths. Ray replaces workers that die and processes
their source again; finished sources are found in the work folder.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

from landscape_video.training.preparation.source_clips import prepare_source
from landscape_video.training.settings.preparation import PreparationSettings


def prepare_on_ray(sources: list[str], settings: PreparationSettings) -> Iterator[dict[str, Any]]:
    """Yield the outcome of each source as it becomes ready.

    Raises:
        ImportError, ValueError: Ray is not installed, no cluster is at the address, or Ray gave up.
    """
    address, workers = settings.machines.ray, settings.machines.workers
    try:
        import ray
    except ImportError:
        raise ImportError("--ray needs Ray: pip install '.[distributed]'.") from None
    environment = {"RAY_USAGE_STATS_ENABLED": "0"}  # Ray sends no usage statistics
    if address == "local":
        os.environ.update(environment)  # inherited
        arguments = {"num_cpus": workers, "include_dashboard": False}
    else:
        arguments = {"runtime_env": {"env_vars": environment}}
    try:
        ray.init(address=address, log_to_driver=False, **arguments)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"--ray {address}: {' '.join(str(error).split())}") from None
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False  # ours is shown
        rows = ray.data.from_items([{"source": name} for name in sources], override_num_blocks=len(sources))

        def prepare(row: dict[str, Any]) -> dict[str, str]:
            outcome = prepare_source(row["source"], settings)
            return {"outcome": json.dumps(outcome)}  # as text, because Arrow would unify and change types

        for row in rows.map(prepare, num_cpus=1, compute=ray.data.TaskPoolStrategy(size=workers)).iter_rows():
            yield json.loads(row["outcome"])
    except ray.exceptions.RayError as error:  # after Ray's own retries
        lines = str(error).strip().splitlines()
        raise ValueError(f"Ray gave up: {lines[-1]} Finished sources are kept: run the same command again.") from None
    finally:
        ray.shutdown()
