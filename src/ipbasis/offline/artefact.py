"""The trained basis: what it holds, and how it is kept on disk.

``basis.safetensors`` holds the tensors, ``basis.json`` the `Record` and ``checksum``, the SHA-256 of that record and of
the tensors' file; bases written before have none.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from math import ceil, prod
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import safetensors.torch
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from safetensors import SafetensorError
from torch import Tensor

from ipbasis.errors import InputError
from ipbasis.features.interface import Features
from ipbasis.features.piecewise import Piecewise, PiecewiseSettings, cell_quadrature
from ipbasis.features.quadrature import Quadrature, gauss_legendre
from ipbasis.features.trunk import Trunk, TrunkSettings
from ipbasis.files import replacing_file
from ipbasis.offline.formats import in_format_3
from ipbasis.offline.local_accuracy import LocalAccuracy
from ipbasis.offline.settings import BasisSettings
from ipbasis.problem.declaration import Declared, Interval, Problem
from ipbasis.problem.equations import MultiIndex
from ipbasis.problem.units import Units, rescaled

# times the root mean square of a basis's errors, up to which they occur: few tasks are worse
_TOLERATED = 3.0
_SAME_DOMAIN = 1e-5  # of its width: a domain in single precision


class Accuracy(Declared):
    """How far a basis carries, measured on forward solutions of unseen tasks in the trained ranges.

    Args:
        residual: root mean square residual, relative to the root mean square of the solution.
        solution: root mean square error of the solution relative to its own; None without a reference.
        worst_residual: the largest relative residual among the tasks.
        median_residual: the median of the relative residual; far below `residual` where few tasks are hard.
        approximation: root mean square of the smallest relative error that any readouts leave; None without a
            reference.
        by_range: for each parameter and each ``initial_<name>`` that has a range, `residual` of the tasks in each
            quarter of it; None where there are none.
    """

    residual: PositiveFloat
    solution: PositiveFloat | None
    worst_residual: PositiveFloat | None = None
    median_residual: PositiveFloat | None = None
    approximation: PositiveFloat | None = None
    by_range: dict[str, list[PositiveFloat | None]] = {}

    @property
    def usual_residual(self) -> float:
        """The usual relative residual: where few tasks are hard, they do not count."""
        return self.median_residual or self.residual

    @property
    def worst_ratio(self) -> float:
        """The worst relative residual in units of `residual`."""
        return (self.worst_residual or self.residual) / self.residual

    @property
    def floor(self) -> float:
        """Smallest relative error that a fit can have; without a reference the residual stands for it."""
        return self.approximation or self.solution or self.residual

    def tolerated(self, solved: bool = False) -> float:
        """Relative error of a fit that is never held against data or equation: three times the usual one.

        Args:
            solved: whether the equations were solved from their conditions, not fitted to data.
        """
        return _TOLERATED * max(self.floor, self.residual, (self.solution or 0.0) if solved else 0.0)


class Record(Declared):
    """What ``basis.json`` holds.

    Args:
        format_version: of the directory.
        problem: whose solutions the functions span.
        units: in which the functions are given and parameters are searched; None for those of the problem.
        requested: relative error of unseen solutions that was asked for.
        features: what the functions are combined of.
        functions: number K of functions.
        quadrature_points: points along each coordinate at which residuals are taken; of every cell of piecewise
        features
            where there is one number for each coordinate.
        accuracy: of all functions.
        local: accuracy as a function of the parameters; None where it was not measured so.
        rounding: relative error of a function's values by rounding; None where it was not measured.
        leading: accuracy of the first functions alone, by their number; those that a nonlinear search begins with.
        settings: what it was made with; plain data where a recipe of another room made it.
        versions: of what the numbers depend on.
        figures: of the training: metrics of the best validation, with its ``step``, and ``seconds``.
        provenance: further facts of where it comes from, such as the profile of the pipeline.
    """

    format_version: Literal[3] = 3
    problem: Problem
    units: Units | None = None
    requested: PositiveFloat = 1e-3
    features: Annotated[TrunkSettings | PiecewiseSettings, Field(discriminator="kind")]
    functions: PositiveInt
    quadrature_points: PositiveInt | tuple[PositiveInt, ...]
    accuracy: Accuracy
    local: LocalAccuracy | None = None
    rounding: PositiveFloat | None = None
    leading: dict[PositiveInt, Accuracy] = {}
    settings: BasisSettings | dict[str, Any] = {}
    versions: dict[str, str] = {}
    figures: dict[str, float] = {}
    provenance: dict[str, str] = {}


@dataclass(frozen=True)
class Solved:
    """Solutions of tasks in the trained ranges, from which a search starts.

    Args:
        parameters: (T, P) in the units of the basis.
        initial: (T, free initial values).
        readouts: (T, F, K).
    """

    parameters: Tensor
    initial: Tensor
    readouts: Tensor


@dataclass(frozen=True, eq=False)
class Basis:
    """K functions of the coordinates that span the solutions of a problem.

    Args:
        features: the raw features.
        transform: (H, K) float64 combination of the raw features; orthonormal functions, best first. None where the
            functions are the raw features, K = H.
        record: the problem and where the basis comes from.
        solved: solutions to start a search from; None where the search needs none.
    """

    features: Features
    transform: Tensor | None
    record: Record
    solved: Solved | None = None

    @property
    def problem(self) -> Problem:
        return self.record.problem

    @cached_property
    def inner(self) -> "Basis":
        """The same for the problem in the units of the basis, in which everything is searched.

        A parameter without bounds and prior is searched in its range widened, see `Interval.widened`.
        """
        units, problem = self.record.units, self.problem
        if units is None:
            return self
        told = {*problem.bounds, *problem.priors, *problem.fixed}
        bounds = {name: own.widened for name, own in problem.parameters.items() if name not in told}
        update = {"problem": rescaled(problem.with_knowledge(bounds), units), "units": None}
        return replace(self, record=self.record.model_copy(update=update))

    def on(self, device: torch.device) -> "Basis":
        """The same on another device, always the same object for it."""
        if device not in self._elsewhere:
            moved = None if self.transform is None else self.transform.to(device)
            self._elsewhere[device] = replace(self, features=deepcopy(self.features).to(device), transform=moved)
        return self._elsewhere[device]

    @cached_property
    def _elsewhere(self) -> dict[torch.device, "Basis"]:
        return {self.features.domain.device: self}

    def leading(self, functions: int) -> "Basis":
        """The first functions alone, at as many fewer points; one of the numbers whose accuracy the record holds."""
        record, points = self.record, self.record.quadrature_points
        if isinstance(points, int):
            points = ceil(points * (functions / record.functions) ** (1 / len(self.problem.coordinates)))
        update = {
            "functions": functions,
            "quadrature_points": points,
            "accuracy": record.leading[functions],
            "leading": {number: accuracy for number, accuracy in record.leading.items() if number < functions},
        }
        return replace(self, transform=self.transform[:, :functions], record=record.model_copy(update=update))

    @cached_property
    def quadrature(self) -> Quadrature:
        """Points over the domain at which residuals are taken."""
        points = self.record.quadrature_points
        if isinstance(points, tuple):
            return cell_quadrature(self.record.features, points)
        return gauss_legendre(self.problem.domain, points, self.features.dtype)

    def function_map(self, points: Tensor, indices: tuple[MultiIndex, ...] = ((),)) -> Mapping[MultiIndex, Tensor]:
        """For each derivative, the (n, K) float64 values of the functions at points (n, d)."""
        with torch.no_grad():
            points = points.to(self.features.dtype)
            if self.transform is None:
                return {index: values.double() for index, values in self.features(points, indices).items()}
            return self.features.combined(points, indices, self.transform)

    def functions(self, points: Any, derivative: str = "") -> np.ndarray:
        """Values of the compressed basis, or of a derivative of it.

        Readouts of fields are in the units of the basis: times `Units.field_scales` they give a field in its own.

        Args:
            points: (n, d) coordinates in the problem's own units; (n,) if there is one coordinate.
            derivative: coordinates to differentiate along, such as ``"xx"``; empty for the value.

        Returns:
            (n, K) float64.

        Raises:
            InputError: if points or derivative do not fit the problem's coordinates.
        """
        points = np.asarray(points, dtype=float)
        dimension = len(self.problem.coordinates)
        if points.ndim == 1 and dimension == 1:
            points = points[:, None]
        if points.ndim != 2 or points.shape[1] != dimension:
            raise InputError(f"points of shape {points.shape}: expected (n, {dimension}) for {self.problem.name}")
        index = self.problem.notation.index(derivative)
        return self.derivatives(torch.tensor(points), (index,))[index].numpy()

    def derivatives(self, points: Tensor, indices: tuple[MultiIndex, ...] = ((),)) -> Mapping[MultiIndex, Tensor]:
        """`function_map` with points and derivatives in the problem's own units."""
        units = self.record.units
        if units is None:
            return self.function_map(points, indices)
        scales = [unit.scale for unit in units.coordinates.values()]
        values = self.function_map(torch.as_tensor(units.points_to(points.numpy())), indices)
        return {index: value / prod(scales[number] for number in index) for index, value in values.items()}

    def for_problem(self, problem: Problem) -> "Basis":
        """The same functions for another problem on the same domain, such as other unknowns in the same equation.

        Raises:
            InputError: if its coordinates or fields are others.
        """
        own = self.problem
        for kind in ("coordinates", "fields"):
            if getattr(problem, kind) != getattr(own, kind):
                has, wanted = (_listed(getattr(p, kind)) for p in (own, problem))
                raise InputError(f"{problem.name}: a basis of {own.name} has the {kind} {has}, not {wanted}")
        return replace(self, record=self.record.model_copy(update={"problem": problem}))

    def save(self, directory: str | Path) -> None:
        """Write ``basis.safetensors`` and ``basis.json`` into a directory.

        The record is removed first and written last, so that a directory cut off half-way counts as
        incomplete.

        Raises:
            InputError: if the directory cannot be written.
        """
        record_file, tensors_file = self.files(directory)
        tensors = {} if self.transform is None else {"transform": self.transform.contiguous()}
        state = self.features.state_dict()
        tensors |= {f"features.{name}": value.detach().contiguous() for name, value in state.items()}
        if self.solved is not None:  # half the digits do for a start
            tensors |= {f"solved.{name}": value.float().contiguous() for name, value in vars(self.solved).items()}
        content, values = safetensors.torch.save(tensors), json.loads(self.record.model_dump_json())
        values["checksum"] = _checksum(values, content)
        try:
            record_file.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{directory}: cannot be written ({error.strerror})") from None
        with replacing_file(tensors_file) as temporary:
            temporary.write_bytes(content)
        with replacing_file(record_file) as temporary:
            temporary.write_text(json.dumps(values, indent=2) + "\n")

    @staticmethod
    def files(directory: str | Path) -> tuple[Path, Path]:
        """Where the record and the tensors of a basis in a directory are."""
        return Path(directory) / "basis.json", Path(directory) / "basis.safetensors"

    @classmethod
    def load(cls, directory: str | Path) -> "Basis":
        """Read a basis.

        Raises:
            InputError: if the directory is incomplete, damaged or of another format version.
        """
        record_file, tensors_file = cls.files(directory)
        expected = "a basis directory holds basis.safetensors and basis.json"
        for file in (record_file, tensors_file):
            if not os.path.isfile(file):
                raise InputError(f"{directory}: {file.name} is missing; {expected}")
        try:
            values = json.loads(record_file.read_text(encoding="utf-8"))
            content = tensors_file.read_bytes()
            found = values.get("format_version")
        except OSError as error:
            raise InputError(f"{directory}: cannot be read ({error.strerror})") from None
        except (ValueError, AttributeError, RecursionError):
            raise InputError(f"{record_file}: not the JSON record of a basis; {expected}") from None
        if found not in (1, 2, 3):
            raise InputError(f"{directory}: format version {found}; this ipbasis reads the versions 1 to 3")
        if "checksum" in values and values.pop("checksum") != _checksum(values, content):
            what = "basis.json and basis.safetensors are not as they were written together"
            raise InputError(f"{directory}: damaged: {what} (checksum); a fresh copy of both is right")
        try:
            record = Record(**in_format_3(values))
        except InputError as error:
            raise InputError(f"{record_file}: {error}") from None
        except (TypeError, ValueError, LookupError, AttributeError):
            raise InputError(f"{record_file}: not the JSON record of a basis; {expected}") from None
        try:
            return _of_tensors(record, safetensors.torch.load(content))
        except (SafetensorError, LookupError, RuntimeError, TypeError, ValueError, MemoryError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"{tensors_file}: does not fit basis.json: {reason}") from None


def _checksum(record: Mapping[str, Any], tensors: bytes) -> str:
    """Of the values of a record, without a checksum, and of the file of the tensors."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    digest.update(tensors)
    return digest.hexdigest()


def _of_tensors(record: Record, tensors: Mapping[str, Tensor]) -> Basis:
    """The basis of a record and its tensors.

    Raises:
        RuntimeError: if they do not fit.
    """
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() and tensor.isfinite().all()):
            raise RuntimeError(f"{name} holds what is no finite number")
    groups: dict[str, dict[str, Tensor]] = {"features": {}, "solved": {}, "transform": {}}
    for name, tensor in tensors.items():
        group, _, own = name.partition(".")
        # before format 3 features were a trunk, and named so
        groups["features" if group == "trunk" else group][own] = tensor
    features = _features(record, groups["features"])
    transform = groups["transform"].get("")
    solved = Solved(**{name: value.double() for name, value in groups["solved"].items()}) if groups["solved"] else None
    _check_shapes(features, transform, record, solved)
    return Basis(features.requires_grad_(False), transform, record, solved)


def _features(record: Record, state: Mapping[str, Tensor]) -> Features:
    """Features of a record with their state.

    Raises:
        RuntimeError: if the state is of others, or they are on another domain.
    """
    problem, settings, units = record.problem, record.features, record.units
    domain = problem.domain if units is None else units.points_to(problem.domain.T).T
    if isinstance(settings, PiecewiseSettings):
        features = Piecewise(settings)
    else:
        # told before features of any size are made
        sizes = [len(value) for name, value in state.items() if name.startswith("bias")]
        if sizes != [settings.width] * settings.depth:
            raise RuntimeError(f"layers of {', '.join(map(str, sizes))} features")
        features = Trunk(domain.copy(), settings, torch.Generator())  # the state is written into it
    features.load_state_dict(state)
    own, wide = features.domain.double().numpy(), np.ptp(domain, axis=1, keepdims=True)
    if own.shape != domain.shape or not (np.abs(own - domain) <= _SAME_DOMAIN * wide).all():
        raise RuntimeError(f"the domain of the features is {own.tolist()}, that of the problem {domain.tolist()}")
    return features


def _check_shapes(features: Features, transform: Tensor | None, record: Record, solved: Solved | None) -> None:
    """Refuse a transform that is not (H, K), and solutions of other shapes than those of the problem.

    Raises:
        RuntimeError: says which.
    """
    found = (features.feature_count, features.feature_count) if transform is None else tuple(transform.shape)
    if found != (features.feature_count, record.functions):
        raise RuntimeError(f"a transform of shape {found}; {(features.feature_count, record.functions)} is right")
    if solved is None:
        return
    problem, tasks = record.problem, len(solved.parameters)
    shapes = {
        "parameters": (tasks, len(problem.parameters)),
        "initial": (tasks, len(problem.free_initial)),
        "readouts": (tasks, len(problem.fields), record.functions),
    }
    for name, shape in shapes.items():
        if tuple(getattr(solved, name).shape) != shape:
            raise RuntimeError(f"solved.{name} of shape {tuple(getattr(solved, name).shape)}; {shape} is right")


def _listed(named: dict[str, Interval] | list[str]) -> str:
    """Names, with their ranges where they have some."""
    return ", ".join(f"{name} in {named[name]}" if isinstance(named, dict) else name for name in named)


def versions() -> dict[str, str]:
    """Versions of everything the numbers depend on."""
    packages = ("ipbasis", "torch", "numpy", "scipy", "sympy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
