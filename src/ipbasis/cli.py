"""The command line: fit observations, show a basis, list the problems."""

import sys
import warnings
from pathlib import Path

import click
import pandas as pd

from ipbasis.errors import InputError
from ipbasis.files import replacing_file
from ipbasis.problem import Problem, problem_directory


class _Commands(click.Group):
    """Turns an `InputError` into one line and exit code 2."""

    def invoke(self, context: click.Context):
        try:
            return super().invoke(context)
        except InputError as error:
            raise _BadInput(str(error)) from None


class _BadInput(click.ClickException):
    exit_code = 2

    def show(self, file=None) -> None:
        click.echo(f"error: {self.message}", err=True)


def _one_line(message, category, filename, lineno, file=None, line=None) -> None:
    click.echo(f"warning: {message}", err=True)


@click.group(cls=_Commands)
@click.version_option(package_name="ipbasis")
def main() -> None:
    """Estimate the parameters of differential equations from data, on a trained basis of their solutions."""
    warnings.showwarning = _one_line


@main.command()
@click.argument("basis_dir", type=click.Path(path_type=Path))
@click.argument("observations", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Where the estimates go: a .csv or .parquet file."
)
@click.option("--figures", type=click.Path(path_type=Path), help="Directory for a picture per query.")
@click.option(
    "--solver", default="gauss_newton", show_default=True, help="Or free_form; adam, term_networks (published)."
)
@click.option("--degree", type=click.IntRange(0), help="Unknown terms: all monomials up to this degree  [default: 2]")
@click.option("--library", multiple=True, help="Unknown terms: a further function, such as 'x/(1 + x)'; repeatable.")
@click.option("--noise-std", type=float, help="Standard deviation of the errors; estimated per query if not given.")
@click.option("--resimulate", is_flag=True, help="Compare the data with the integrated equations too.")
@click.option("--polish", is_flag=True, help="Go on by least squares through the integrated equations.")
@click.option("--profile", is_flag=True, help="Intervals from the profile likelihood.")
@click.option("--correlations", is_flag=True, help="Columns corr_<p>_<q>: correlations of the errors.")
def fit(
    basis_dir: Path,
    observations: Path,
    output: Path,
    figures: Path | None,
    solver: str,
    degree: int | None,
    library: tuple[str, ...],
    noise_std: float | None,
    resimulate: bool,
    polish: bool,
    profile: bool,
    correlations: bool,
) -> None:
    """Estimate the parameters of every query in OBSERVATIONS (CSV or Parquet) on the basis in BASIS_DIR."""
    # PyTorch takes seconds to import: only what needs it does
    from ipbasis.basis.artefact import Basis
    from ipbasis.evaluation.figures import plot_queries
    from ipbasis.inverse.estimate import estimate
    from ipbasis.inverse.unknown_terms import Library
    from ipbasis.observations import read_observations

    if output.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"{output}: the name of the estimates must end in .csv or .parquet")
    basis = Basis.load(basis_dir)
    if degree is not None or library:
        if solver not in ("gauss_newton", "library"):
            raise InputError(f"--degree and --library are for the solver 'library', not {solver!r}")
        solver = Library(degree=2 if degree is None else degree, expressions=list(library))
    observed = read_observations(observations, basis.problem)
    with replacing_file(output) as temporary:  # taken first, so that a path that cannot be written fails at once
        estimates = estimate(basis, observed, solver, noise_std, resimulate=resimulate, polish=polish, profile=profile)
        table = estimates.table.join(estimates.correlation_columns()) if correlations else estimates.table
        if output.suffix.lower() == ".csv":
            table.to_csv(temporary, index=False, float_format="%.8g")
        else:
            table.to_parquet(temporary, index=False)
        if figures is not None:
            plot_queries(estimates, observed, figures)
    counts = estimates.table["status"].value_counts()
    click.echo(f"{len(estimates.table)} queries: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    terms = [name for name in basis.problem.unknown_terms if name in estimates.table]
    searched = [] if terms else [p for p in basis.problem.parameters if p in estimates.table]
    columns = ["query", *(c for p in searched for c in (p, f"{p}_std")), *terms, "noise_std", "status"]
    with pd.option_context("display.width", 120, "display.max_columns", None):
        click.echo(estimates.table[columns].head(10).to_string(index=False, float_format=lambda v: f"{v:.4g}"))
    click.echo(f"written to {output}" + (f", figures to {figures}" if figures else ""))


@main.command()
@click.argument("basis_dir", type=click.Path(path_type=Path))
def show(basis_dir: Path) -> None:
    """Print what a basis is for and how accurate it is."""
    from ipbasis.basis.artefact import Basis

    record = Basis.load(basis_dir).record
    problem, accuracy = record.problem, record.accuracy
    click.echo(f"problem      {problem.name}")
    for equation in problem.equations:
        click.echo(f"equation     {equation} = 0")
    for name, (low, high) in problem.coordinates.items():
        click.echo(f"coordinate   {name} in [{low:g}, {high:g}]")
    for name, (low, high) in problem.parameters.items():
        click.echo(f"parameter    {name} trained in [{low:g}, {high:g}]")
    click.echo(f"basis        {record.functions} functions, trunk {record.trunk.width} x {record.trunk.depth}")
    click.echo(f"residual     {accuracy.residual:.1e} of the solution's size, on unseen tasks")
    if accuracy.solution is not None:
        click.echo(f"solution     {accuracy.solution:.1e} relative error when solved from conditions, unseen tasks")
    if accuracy.approximation is not None:
        click.echo(f"best fit     {accuracy.approximation:.1e} relative error that no readouts avoid, unseen tasks")
    for name, value in record.figures.items():
        click.echo(f"{name:12} {value:.4g}")
    click.echo("versions     " + ", ".join(f"{name} {version}" for name, version in record.versions.items()))


@main.command()
def problems() -> None:
    """List the problems that come with ipbasis."""
    for path in sorted(problem_directory().glob("*.yaml")):
        problem = Problem.from_yaml(path)
        click.echo(f"{problem.name}")
        for equation in problem.equations:
            click.echo(f"    {equation} = 0")
        ranges = ", ".join(f"{name} in [{low:g}, {high:g}]" for name, (low, high) in problem.parameters.items())
        click.echo(f"    {ranges}")


if __name__ == "__main__":
    sys.exit(main())
