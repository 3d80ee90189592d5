"""Records of the formats before, read as they would be written today."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ipbasis.errors import InputError
from ipbasis.offline.settings import BasisSettings


def in_format_3(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a record of any format as format 3 has them: before, features were a trunk and named so."""
    if values["format_version"] == 1:
        values = _in_format_2(values)
    if values["format_version"] == 2:
        values = {**values, "format_version": 3}
        if "trunk" in values:
            values["features"] = {"kind": "trunk", **values.pop("trunk")}
    return values


def _in_format_2(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a record as format 2 has them.

    Format 1 held in ``settings`` the groups ``basis`` (size), ``offline`` (training and so on), ``recipe`` and
    ``profile``. Those of a recipe of another room stay as they are.
    """
    values = {**values, "format_version": 2}
    groups = values.get("settings")
    with suppress(KeyError, TypeError, InputError):  # of another room, or not from the pipeline
        values["provenance"] = {
            "source": groups["recipe"]["source"],
            "profile": groups["profile"]["name"],
            "readouts": str(groups["basis"]["readouts"]),
        }
        values["settings"] = _typed(groups["basis"], groups["offline"])
    return values


def _typed(size: Mapping[str, Any], offline: Mapping[str, Any]) -> BasisSettings:
    return BasisSettings(
        trunk={
            "width": size["width"],
            "depth": size["depth"],
            "dtype": offline["dtype"],
            "first_layer_scale": offline["first_layer_scale"],
        },
        quadrature_points=size["quadrature_points"],
        **{name: offline[name] for name in ("training", "forward", "compression", "validation")},
    )
