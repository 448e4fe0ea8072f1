"""The same preparation on many machines, by Ray Data: sources are rows, and `prepare_source` is what is mapped.

All machines see the source and the work folder under the same paths. A worker that dies is replaced by Ray, and its
source is done again; what was done is found in the work folder.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from landscape_video.training.preparation.source_clips import Preparation, prepare_source


def prepare_on_ray(
    sources: list[str],
    source_dir: Path,
    work_dir: Path,
    preparation: Preparation,
    address: str = "local",
    workers: int | None = None,
) -> Iterator[dict[str, Any]]:
    """The outcome of each source, as they are ready.

    Args:
        address: of a cluster, "auto" for the one around this process, or "local" for one of this machine's cores.
        workers: how many sources are worked on at a time; None for one per core.

    Raises:
        ImportError, ValueError: there is no Ray, no cluster at the address, or Ray gave up.
    """
    try:
        import ray
    except ImportError:
        raise ImportError("--ray needs Ray: pip install '.[distributed]'.") from None
    environment = {"RAY_USAGE_STATS_ENABLED": "0"}  # Ray sends no usage statistics
    if address == "local":
        os.environ.update(environment)  # inherited
        settings = {"num_cpus": workers, "include_dashboard": False}
    else:
        settings = {"runtime_env": {"env_vars": environment}}
    try:
        ray.init(address=address, log_to_driver=False, **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"--ray {address}: {' '.join(str(error).split())}") from None
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False  # there is one already
        rows = ray.data.from_items([{"source": name} for name in sources], override_num_blocks=len(sources))

        def prepare(row: dict[str, Any]) -> dict[str, str]:
            outcome = prepare_source(source_dir, row["source"], work_dir, preparation)
            return {"outcome": json.dumps(outcome)}  # Arrow would unify what the rows hold, and change types

        for row in rows.map(prepare, num_cpus=1, compute=ray.data.TaskPoolStrategy(size=workers)).iter_rows():
            yield json.loads(row["outcome"])
    except ray.exceptions.RayError as error:  # after its own retries
        lines = str(error).strip().splitlines()
        raise ValueError(f"Ray gave up: {lines[-1]} What is done is kept: run the same command again.") from None
    finally:
        ray.shutdown()
