"""Put the tables that the pipeline wrote into README.md, between its markers, and run its examples."""

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from click.testing import CliRunner

from ipbasis.cli import main as command_line
from ipbasis.evaluation.names import BASES, SOURCES, method_text
from ipbasis.files import replacing_file
from pipelines.paths import DATA, REPORTS, ROOT, best_directory
from pipelines.report.outputs import markdown


def _online(name: str) -> pd.DataFrame:
    table = pd.read_csv(REPORTS / "tables" / f"{name}_online.csv")
    table["seconds_per_query"] = table["seconds"] / table["queries"]
    return table


def _method(source: str, terms: object = None) -> str:
    """What a method is called; ours in bold."""
    text = method_text(source, terms)
    return text.replace(SOURCES[source], f"**{SOURCES[source]}**", 1) if source == "ipbasis" else text


def oscillator_table() -> str:
    """Errors and seconds per query of every source on the damped oscillator, in range and far out of it."""
    lines = []
    for (source, readouts), rows in _online("damped_oscillator").groupby(
        ["source", "readouts"], dropna=False, sort=False
    ):
        by_range = rows.set_index("ic_half_range").reindex([5, 40])
        errors = {
            f"{parameter}, {where}": by_range[f"{parameter}_mae"].loc[half_range]
            for half_range, where in ((5, "in range"), (40, "8 x out"))
            for parameter in ("a1", "a2")
        }
        seconds = rows["seconds_per_query"].mean()
        line = {"method": _method(source), "readouts": readouts, "queries": int(rows["queries"].iloc[0])}
        lines.append({**line, **errors, "seconds per query": seconds})
    return markdown(pd.DataFrame(lines))


def lotka_volterra_table() -> str:
    """Errors of the unknown terms of Lotka-Volterra, in and out of range, and seconds for 100 queries."""
    lines = []
    table = _online("lotka_volterra")
    for (source, terms, readouts), rows in table.groupby(["source", "terms", "readouts"], dropna=False, sort=False):
        errors = rows.set_index("parameter_low")["unknown_term_mae"].reindex([0.5, 1.5])
        lines.append(
            {
                "method": _method(source, terms),
                "readouts": readouts,
                "queries": int(rows["queries"].iloc[0]),
                "in range": errors[0.5],
                "out of range": errors[1.5],
                "seconds for 100 queries": 100 * rows["seconds_per_query"].mean(),
            }
        )
    return markdown(pd.DataFrame(lines))


def quantum_oscillator_table() -> str:
    """Errors of k by number of observations, without noise and with 50 % of it, and seconds per query."""
    lines = []
    for source, rows in _online("quantum_oscillator").groupby("source", sort=False):
        line: dict = {"method": _method(source), "queries": int(rows["queries"].iloc[0])}
        for noise in (0, 50):
            errors = rows[rows["noise_percent"] == noise].set_index("observations")["k_mae"]
            line |= {f"{noise} %, {number}": errors.get(number) for number in (10000, 1000, 100, 10)}
        lines.append({**line, "seconds per query": rows["seconds_per_query"].mean()})
        if source == "ipbasis":
            ideal = rows[rows["noise_percent"] == 50].set_index("observations")["k_mae_ideal"]
            lines.append({"method": "(Cramér-Rao value)", **{f"50 %, {number}": v for number, v in ideal.items()}})
    return markdown(pd.DataFrame(lines))


def accuracy_table() -> str:
    """Accuracy, coverage and wrong estimates called ok, cell by cell."""
    accuracy, coverage, false_ok = (
        pd.read_csv(REPORTS / "tables" / f"{name}.csv") for name in ("accuracy_limit", "coverage", "false_ok")
    )
    keys = ["problem", "noise_percent", "observations"]
    cells = accuracy.groupby(keys, sort=False)
    table = cells[["queries", "identifiable_share"]].first()
    table["error / bound"] = cells["rmse_over_cramer_rao"].median().map("{:.2f}".format)
    for confidence, rows in coverage.groupby("confidence"):
        table[f"in {100 * confidence:g} % interval"] = 100 * rows.groupby(keys)["coverage"].mean()
    for drawn, rows in false_ok.groupby("drawn", sort=False):
        table[f"wrong but ok, {drawn}"] = 100 * rows.set_index(keys)["false_ok"]
    table["identifiable_share"] = (100 * table["identifiable_share"]).map("{:.0f}".format)
    names = {"noise_percent": "noise, %", "identifiable_share": "identifiable, %"}
    return markdown(_spaced(table.reset_index()).rename(columns=names))


def search_table() -> str:
    """Shares at the global optimum, ours and those of least squares from each start."""
    table = pd.read_csv(REPORTS / "tables" / "convergence_basin.csv")
    names = "**ipbasis**" + table["variant"].map(", {}".format).where(table["variant"].notna(), "")
    others = "least squares, " + table["times_off"].map("{:g}".format) + " x off"
    table["start"] = names.where(table["source"] == "ipbasis", others)
    shares = 100 * table.pivot_table("share", "problem", "start", sort=False)
    return markdown(_spaced(shares.reset_index()))


def throughput_table() -> str:
    """Queries per second of the fastest batch at 100 observations, and how many times faster than least squares."""
    table = pd.read_csv(REPORTS / "tables" / "throughput.csv")
    table = table[table["observations"] == 100]
    fastest = table.loc[table.groupby(["problem", "layout"], sort=False)["queries_per_second"].idxmax()]
    names = {
        "layout": "points",
        "batch": "queries in a batch",
        "queries_per_second": "queries per second",
        "least_squares_seconds": "seconds per query, least squares",
        "times_faster": "times faster",
        "error_over_cramer_rao": "error / bound",
        "least_squares_error_over_cramer_rao": "error / bound, least squares",
    }
    whole = fastest[["queries_per_second", "times_faster"]].round()
    return markdown(_spaced(fastest.assign(**whole))[["problem", *names]].rename(columns=names))


def zoo_table() -> str:
    """Training, basis and estimates of every problem that comes along; empty cells where it could not be trained."""
    table = pd.read_csv(REPORTS / "tables" / "zoo.csv")
    for name in ("ok", "coverage", "wrong_ok"):
        table[name] *= 100
    ratios = ["error_over_cramer_rao", "typical_error_over_cramer_rao"]
    table[ratios] = table[ratios].map(lambda value: "" if pd.isna(value) else f"{value:.2f}")
    names = {
        "functions": "functions",
        "train_seconds": "seconds to train",
        "accuracy": "error of the basis",
        "queries_per_second": "queries per second",
        "ok": "ok, %",
        "error_over_cramer_rao": "error / bound",
        "typical_error_over_cramer_rao": "typical error / bound",
        "coverage": "in 95 % interval",
        "wrong_ok": "wrong but ok, %",
    }
    whole = table[["functions", "ok", "coverage", "queries_per_second"]].round()
    return markdown(_spaced(table.assign(**whole))[["problem", *names]].rename(columns=names))


def calibration_table() -> str:
    """What intervals and statuses are worth over designs of all kinds, by problem, then by how queries are observed."""
    table = pd.read_csv(REPORTS / "tables" / "calibration.csv")
    kinds = {"problem": "problem", "part": "part", "noise": "noise", "points": "observations", "variant": "variant"}
    table = table[table["by"].isin(kinds)].astype({"points": "Int64"})
    table["cell"] = [f"{kinds[by]}: {table[by][row]}".replace("_", " ") for row, by in table["by"].items()]
    for name in ("coverage", "wrong_ok", "by_chance", "poor_fit"):
        table[name] *= 100
    table["ok"] = (100 * table["ok"]).round()
    names = {
        "queries": "queries",
        "ok": "ok, %",
        "coverage": "in 95 % interval",
        "wrong_ok": "wrong but ok, %",
        "by_chance": "by chance, %",
        "poor_fit": "poor fit, %",
    }
    return markdown(table[["cell", *names]].rename(columns={"cell": "queries of", **names}))


def basis_table() -> str:
    """Error, cost and estimates of as many functions of each basis, ours and those that need no training."""
    quality, size, online = (
        pd.read_csv(REPORTS / "tables" / f"basis_{kind}.csv") for kind in ("quality", "size", "online")
    )
    keys = ["problem", "basis"]
    needed = size[size["relative_l2"] == 0.01].rename(columns={"functions": "functions for 1 %"})
    table = online.merge(quality, on=[*keys, "functions"]).merge(needed[[*keys, "functions for 1 %"]], on=keys)
    seconds = table["train_seconds"]
    table["train_seconds"] = seconds.round().where(seconds > 10, seconds)
    names = {
        "functions": "functions",
        "relative_l2": "error",
        "residual_mse": "residual, mean square",
        "functions for 1 %": "functions for 1 %",
        "train_seconds": "seconds to make",
        "clean_abs_error": "error of estimates, no noise",
        "error_over_cramer_rao": "error / bound, noise",
    }
    return markdown(_spaced(_named(table))[[*keys, *names]].rename(columns=names))


def features_table() -> str:
    """Rank, condition and correlation of the features of each network, and what compression makes of them."""
    table = pd.read_csv(REPORTS / "tables" / "basis_features.csv")
    names = {
        "functions": "functions",
        "rank": "rank",
        "condition_number": "condition number",
        "mean_correlation": "mean correlation",
        "relative_l2": "error",
    }
    table["condition_number"] = table["condition_number"].map("{:.2g}".format)
    keys = ["problem", "basis"]
    raw, compressed = (table.loc[table["stage"] == stage, [*keys, *names]] for stage in ("raw", "compressed"))
    raw = raw.rename(columns={**names, "functions": "features"})
    compressed = compressed.drop(columns="rank").rename(columns={name: f"{text} after" for name, text in names.items()})
    return markdown(_spaced(_named(raw.merge(compressed, on=keys))))


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """The names of bases in words, ours in bold."""
    return table.assign(basis=table["basis"].map({**BASES, "ipbasis": f"**{BASES['ipbasis']}**"}))


def _spaced(table: pd.DataFrame) -> pd.DataFrame:
    """The names of problems as words."""
    return table.assign(problem=table["problem"].str.replace("_", " "))


def example(problem: str, picture: Path | None = None) -> str:
    """What the README's example for a problem prints; its first picture is copied to `picture`."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        basis, observations = best_directory(problem), DATA / "examples" / f"{problem}.csv"
        arguments = ["--output", place / "estimates.csv"]
        if picture is not None:
            arguments += ["--figures", place / "figures"]
        done = CliRunner().invoke(command_line, ["fit", *map(str, [basis, observations, *arguments])])
        if done.exit_code:
            raise RuntimeError(done.output)
        if picture is not None:
            first = sorted((place / "figures").iterdir())[0]
            with replacing_file(picture) as temporary:
                temporary.write_bytes(first.read_bytes())
    lines = done.output.splitlines()
    return "\n".join(f"    {line}".rstrip() for line in lines if not line.startswith("written to"))


TABLES: dict[str, Callable[[], str]] = {
    "damped_oscillator table": oscillator_table,
    "lotka_volterra table": lotka_volterra_table,
    "quantum_oscillator table": quantum_oscillator_table,
    "accuracy table": accuracy_table,
    "search table": search_table,
    "throughput table": throughput_table,
    "zoo table": zoo_table,
    "calibration table": calibration_table,
    "basis table": basis_table,
    "features table": features_table,
}
EXAMPLES = ("damped_oscillator", "lotka_volterra", "lotka_volterra_unknown_terms", "quantum_oscillator")


def replaced(text: str, name: str, content: str) -> str:
    """Text with the block between the markers of this name replaced."""
    begin, end = f"<!-- {name}: written by pipelines/report/readme.py -->", f"<!-- end of {name} -->"
    pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
    if not re.search(pattern, text, re.DOTALL):
        raise ValueError(f"README.md has no markers for {name}")
    return re.sub(pattern, lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)


def main() -> int:
    readme = ROOT / "README.md"
    text = readme.read_text()
    for name, table in TABLES.items():
        text = replaced(text, name, table())
    for problem in EXAMPLES:
        picture = REPORTS / "figures" / f"example_{problem}.png"
        text = replaced(text, f"{problem} example", f"\n{example(problem, picture)}\n")
    with replacing_file(readme) as temporary:
        temporary.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
