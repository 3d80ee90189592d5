"""Observations taken into the units in which a basis is searched, and the table of estimates back."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ipbasis.estimates.resimulate import COLUMN
from ipbasis.observations.long_form import Batch, Observations
from ipbasis.problem.declaration import Problem
from ipbasis.problem.units import Units
from ipbasis.search.noise import NoiseStd


def observations_to(units: Units, declared: Problem, observed: Observations, relative: bool) -> pd.DataFrame:
    """The table of observations in the units of a basis.

    Args:
        units: of the basis.
        declared: the problem as users wrote it.
        observed: checked observations of the declared problem.
        relative: whether standard deviations are shares of the fields, which have no unit.
    """
    table = observed.table.copy()
    coordinates = list(declared.coordinates)
    table[coordinates] = units.points_to(table[coordinates].to_numpy(dtype=float))
    for name, scale in units.fields.items():
        columns = [name] if relative else [name, f"{name}_std"]
        for column in columns:
            if column in table:
                table[column] = table[column] / scale
    parameters = list(declared.parameters)
    given = [name for name in parameters if name in table]
    if given:
        values = table.reindex(columns=parameters).to_numpy(dtype=float)
        table[given] = units.to(values)[:, [parameters.index(name) for name in given]]
    for jet, name in zip(declared.free_initial, declared.known_names[len(parameters) :], strict=True):
        if name in table:
            table[name] = table[name] / units.jet_scale(jet)
    return table


def noise_to(units: Units, noise_std: NoiseStd, relative: bool) -> NoiseStd:
    """Given standard deviations in the units of a basis."""
    if noise_std is None or relative:
        return noise_std
    own = noise_std if isinstance(noise_std, Mapping) else dict.fromkeys(units.fields, noise_std)
    scaled = {name: std / units.fields[name] for name, std in own.items()}
    # one number stays one: the same standard deviation for every observation
    return next(iter(scaled.values())) if len(units.fields) == 1 else scaled


def table_from(units: Units, table: pd.DataFrame, batch: Batch, relative: bool) -> pd.DataFrame:
    """A table of estimates in the units of the declared problem.

    Args:
        units: of the basis.
        table: of the estimates in these units.
        batch: the observations; where standard deviations came with them, misfits are in units of these.
        relative: whether standard deviations of the noise are shares of the fields.
    """
    names, counts, given = list(units.parameters), batch.observed.sum(1), batch.std is not None
    own, table = table[names].to_numpy(dtype=float), table.copy()
    slopes = units.slopes(own)
    columns = {"": units.values(own), "_std": table[[f"{name}_std" for name in names]].to_numpy() * slopes}
    columns |= {end: units.values(table[[f"{name}{end}" for name in names]].to_numpy()) for end in ("_low", "_high")}
    for suffix, values in columns.items():
        table[[f"{name}{suffix}" for name in names]] = values
    if relative:
        return table
    noise, before = [f"{name}_noise_std" for name in units.fields], table["noise_std"].to_numpy()
    if len(noise) == 1:
        table["noise_std"] *= units.field_scales[0]
    else:
        table[noise] = table[noise].to_numpy() * units.field_scales
        squares = np.where(counts > 0, counts * table[noise].to_numpy() ** 2, 0.0).sum(1)
        table["noise_std"] = np.sqrt(squares / counts.sum(1))
    if COLUMN in table and not given:  # of all fields together, like the noise
        table[COLUMN] *= table["noise_std"] / before
    return table
