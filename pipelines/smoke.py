"""Run the whole pipeline with the smoke profile on a copy of the checkout, which stays as it was."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from pipelines.paths import ROOT


def _copy(target: Path) -> None:
    """Clone the checkout and lay its uncommitted and untracked files on top."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(target)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
        else:
            (target / name).unlink(missing_ok=True)


def phases(parameters: Mapping) -> list[list[list[str]]]:
    """The stages of the pipeline: phases one after the other, in each two lists that need nothing of one another.

    Args:
        parameters: of params.yaml.
    """
    query, pinn, compare = (
        [f"{stage}@{name}" for name in parameters["problems"]] for stage in ("query", "pinn", "compare")
    )
    trained = [f"train@{name}" for name in parameters["bases"]]
    return [
        [["simulate"], ["published_data"]],
        [[*trained, *query], [*pinn, "least_squares", "derivatives"]],
        [compare[::2], [*compare[1::2], "offline"]],
        [["accuracy_limit", "basis_quality", "calibration"], ["convergence_basin", "throughput", "zoo"]],
    ]


def smoke(target: Path) -> None:
    """Run every stage once, tiny, in a copy of the checkout at `target`; two stages at a time.

    Raises:
        subprocess.CalledProcessError: if a stage fails.
    """
    _copy(target)
    parameters = yaml.safe_load((target / "params.yaml").read_text())
    first = {base["problem"]: (name, base) for name, base in reversed(parameters["bases"].items())}
    parameters |= {"profile": "smoke", "bases": dict(first.values())}
    (target / "params.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # the copy's own code, not the one that is installed
        "PYTHONPATH": f"{target / 'src'}",
        "IPBASIS_PIPELINE_RUN": "smoke",
        # two stages at a time: one core each
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    # budgets that another profile has may have no place in this one
    command = [sys.executable, "-m", "pipelines.dependencies", "--write"]
    subprocess.run(command, cwd=target, check=True, env=environment)

    def reproduce(stages: list[str]) -> None:
        command = ["dvc", "--wait-for-lock", "repro", "--force", "--single-item", *stages]
        subprocess.run(command, cwd=target, check=True, env=environment)

    with ThreadPoolExecutor(2) as pool:
        for phase in phases(parameters):
            list(pool.map(reproduce, phase))


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="ipbasis-smoke-") as directory:
        try:
            smoke(Path(directory) / "ipbasis")
        except subprocess.CalledProcessError as error:
            print(f"error: {' '.join(error.cmd)} failed with exit code {error.returncode}", file=sys.stderr)
            return 1
    print("smoke: every stage ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
