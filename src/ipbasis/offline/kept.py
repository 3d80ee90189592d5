"""Solved tasks on disk, from which an interrupted training goes on."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
from safetensors import SafetensorError

from ipbasis.files import replacing_file
from ipbasis.offline.trajectory import Slab, Trajectory


@dataclass(frozen=True)
class Kept:
    """A directory of solved tasks, a file for each, named by all that its solution follows from.

    Args:
        directory: made when the first task is kept.
    """

    directory: Path

    def _file(self, *asked: object) -> Path:
        return self.directory / f"{hashlib.sha256(repr(asked).encode()).hexdigest()[:32]}.safetensors"

    def read(self, unknowns: np.ndarray, *asked: object) -> Trajectory | None:
        """The solution of a task with unknowns (U,) of what is asked besides; None if it is not here, or damaged."""
        try:
            with safetensors.safe_open(self._file(unknowns.tolist(), *asked), "pt") as file:
                slabs = json.loads(file.metadata()["slabs"])
                return Trajectory(tuple(Slab(*own, file.get_tensor(str(n)), tail) for n, (*own, tail) in slabs))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def write(self, solution: Trajectory, unknowns: np.ndarray, *asked: object) -> None:
        """Keep the solution of a task, see `read`."""
        tensors = {str(number): slab.readouts.contiguous() for number, slab in enumerate(solution.slabs)}
        slabs = [(number, (slab.level, slab.number, slab.tail)) for number, slab in enumerate(solution.slabs)]
        with replacing_file(self._file(unknowns.tolist(), *asked)) as temporary:
            safetensors.torch.save_file(tensors, temporary, {"slabs": json.dumps(slabs)})

    def clear(self) -> None:
        """Remove all, when a training has reached its end."""
        shutil.rmtree(self.directory, ignore_errors=True)
