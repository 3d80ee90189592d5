"""The command line: check a problem, train a basis, simulate and fit observations, show a basis, list the problems."""

import errno
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ipbasis.errors import InputError
from ipbasis.files import claimed, refuse_inputs, replacing_file

if TYPE_CHECKING:
    from ipbasis.problem.declaration import Problem

_FIX, _BOUNDS = "NAME=VALUE", "NAME=LOW:HIGH, an end may be left open"
_PRIOR = "NAME=normal:MEAN,STD or NAME=lognormal:MEDIAN,STD of the logarithm"


class _Commands(click.Group):
    """Turns bad input, and what the machine refuses, into one line and exit code 2; a signal into its exit code."""

    def invoke(self, context: click.Context):
        try:
            with _signals_raise():
                return super().invoke(context)
        except InputError as error:
            raise _BadInput(str(error)) from None
        except MemoryError:
            raise _BadInput("not enough memory; fewer queries, or for a fit a smaller --chunk, would help") from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            where = "" if error.filename is None else f"{error.filename}: "
            if not where:
                _let_go_of_output()
            raise _BadInput(f"{where}{error.strerror or error}") from None
        except KeyboardInterrupt as stop:
            click.echo("; ".join(["stopped", *getattr(stop, "__notes__", [])]), err=True)
            raise click.exceptions.Exit(128 + getattr(stop, "signal", signal.SIGINT)) from None


def _let_go_of_output() -> None:
    """What standard output did not take would be tried again at the end, and change the exit code."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())


class _Stop(KeyboardInterrupt):
    """A signal that asks the process to end: what is half-written is removed on the way, as after Ctrl-C."""

    def __init__(self, number: int):
        super().__init__()
        self.signal = number


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP raise; one that is ignored, as under nohup, stays so."""

    def stop(number: int, frame: object) -> None:
        raise _Stop(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.getsignal(number) for number in numbers}
    for number in (number for number in numbers if before[number] == signal.SIG_DFL):
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])


class _BadInput(click.ClickException):
    exit_code = 2

    def show(self, file=None) -> None:
        click.echo(f"error: {_in_one_line(self.message)}", err=True)


_LONGEST_MESSAGE = 1000


def _in_one_line(text: object) -> str:
    """A message in one line, whatever names and values it holds."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", str(text))
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}..."


def _one_line(message, category, filename, lineno, file=None, line=None) -> None:
    click.echo(f"warning: {_in_one_line(message)}", err=True)


@click.group(cls=_Commands)
@click.version_option(package_name="ipbasis")
def main() -> None:
    """Estimate the parameters of differential equations from data, on a trained basis of their solutions."""
    warnings.showwarning = _one_line
    warnings.simplefilter("ignore", RuntimeWarning)  # numbers that overflow: the status of their query tells
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal has no letters for


def _named(option: str, texts: tuple[str, ...], form: str) -> dict[str, str]:
    """Repeated options ``NAME=...`` by name."""
    parts = [text.partition("=") for text in texts]
    for text, (name, sign, value) in zip(texts, parts, strict=True):
        if not (name and sign and value):
            raise InputError(f"{option} {text!r}: expected {form}")
    return {name.strip(): value.strip() for name, _, value in parts}


def _numbers(option: str, text: str, parts: list[str], form: str) -> list[float | None]:
    """Numbers in the parts of an option, None for an empty one."""
    try:
        return [float(part) if part.strip() else None for part in parts]
    except ValueError:
        raise InputError(f"{option} {text!r}: expected {form}") from None


def _with_knowledge(
    problem: "Problem", fix: tuple[str, ...], bounds: tuple[str, ...], prior: tuple[str, ...]
) -> "Problem":
    """The problem with what the command line says of its parameters.

    Raises:
        InputError: if an option does not parse or does not fit the problem.
    """
    fixed, limits, priors = {}, {}, {}
    for name, text in _named("--fix", fix, _FIX).items():
        (fixed[name],) = _numbers("--fix", f"{name}={text}", [text], _FIX)
    for name, text in _named("--bounds", bounds, _BOUNDS).items():
        if text.count(":") != 1:
            raise InputError(f"--bounds '{name}={text}': expected {_BOUNDS}")
        limits[name] = tuple(_numbers("--bounds", f"{name}={text}", text.split(":"), _BOUNDS))
    for name, text in _named("--prior", prior, _PRIOR).items():
        kind, _, numbers = text.partition(":")
        values = _numbers("--prior", f"{name}={text}", numbers.split(","), _PRIOR)
        if kind not in ("normal", "lognormal") or len(values) != 2 or None in values:
            raise InputError(f"--prior '{name}={text}': expected {_PRIOR}")
        priors[name] = {kind: tuple(values)}
    return problem.with_knowledge(limits, priors, fixed)


def _noise_std(given: tuple[str, ...]) -> float | dict[str, float] | None:
    """The values of --noise-std: numbers by field, or a single one for all."""
    found = {}
    for text in given:
        field, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise InputError(f"--noise-std {text!r}: a number such as 0.1 is right, or x=0.1 for a field x") from None
        if field in found or "" in found or (found and not field):
            raise InputError("--noise-std: one number for all fields is right, or one for each as x=0.1")
        found[field] = value
    return found.get("", found or None)


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
@click.option(
    "--noise-std",
    multiple=True,
    help="Standard deviation of the errors, for all fields, or of one: x=0.1; repeatable. Estimated if not given.",
)
@click.option("--noise", default="gaussian", show_default=True, help="Or lognormal: errors proportional to the fields.")
@click.option("--loss", default="squares", show_default=True, help="Or huber: outliers count for little.")
@click.option("--device", default="cpu", show_default=True, help="Or cuda: where PyTorch searches.")
@click.option("--fix", multiple=True, metavar="NAME=VALUE", help="Give a parameter or initial_<name>; repeatable.")
@click.option("--bounds", multiple=True, metavar="NAME=LOW:HIGH", help="Keep a parameter within bounds; repeatable.")
@click.option(
    "--prior", multiple=True, metavar="NAME=normal:MEAN,STD", help="Or NAME=lognormal:MEDIAN,STD; repeatable."
)
@click.option(
    "--chunk",
    type=click.IntRange(1),
    default=1_000_000,
    show_default=True,
    help="Rows held in memory at once; a larger file is taken in chunks, and a run that was killed is finished by "
    "typing its command again.",
)
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
    noise_std: tuple[str, ...],
    noise: str,
    loss: str,
    device: str,
    fix: tuple[str, ...],
    bounds: tuple[str, ...],
    prior: tuple[str, ...],
    chunk: int,
    resimulate: bool,
    polish: bool,
    profile: bool,
    correlations: bool,
) -> None:
    """Estimate the parameters of every query in OBSERVATIONS (CSV or Parquet) on the basis in BASIS_DIR."""
    # PyTorch takes seconds to import: only what needs it does
    import pandas as pd

    from ipbasis.estimates.estimate import estimate
    from ipbasis.estimates.stream import Summary, estimate_file, write_estimates
    from ipbasis.evaluation.figures import INDEX, check_drawable, plot_queries
    from ipbasis.observations.long_form import read_observations
    from ipbasis.observations.readers import has_more_rows
    from ipbasis.offline.artefact import Basis
    from ipbasis.published.solvers import PUBLISHED
    from ipbasis.search.library import Library

    if output.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"{output}: the name of the estimates must end in .csv or .parquet")
    outputs = [output] if figures is None else [output, figures / INDEX]
    refuse_inputs(outputs, [observations, *Basis.files(basis_dir)])
    basis = Basis.load(basis_dir)
    if figures is not None:
        check_drawable(basis.problem)
    basis = basis.for_problem(_with_knowledge(basis.problem, fix, bounds, prior))
    if degree is not None or library:
        if solver not in ("gauss_newton", "library"):
            raise InputError(f"--degree and --library are for the solver 'library', not {solver!r}")
        solver = Library(degree=2 if degree is None else degree, expressions=list(library))
    elif solver in PUBLISHED:
        solver = PUBLISHED[solver]()
    options = {"solver": solver, "noise_std": _noise_std(noise_std), "noise": noise, "loss": loss, "device": device}
    options |= {"resimulate": resimulate, "polish": polish, "profile": profile, "correlations": correlations}
    if has_more_rows(observations, chunk):
        if figures is not None:
            raise InputError(f"--figures: one chunk at most, {chunk} rows; {observations} has more")
        summary = estimate_file(basis, observations, output, chunk, **options)
    else:
        observed = read_observations(observations, basis.problem)
        with claimed(*outputs):  # first, so that a path that cannot be written fails at once
            estimates = estimate(basis, observed, **options)
            with replacing_file(output) as temporary:
                write_estimates(estimates.table, temporary)
            if figures is not None:
                plot_queries(estimates, observed, figures)
        summary = Summary.of([estimates.table])
    counts, head = summary.counts, summary.head
    click.echo(f"{sum(counts.values())} queries: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    terms = [name for name in basis.problem.unknown_terms if name in head]
    searched = [] if terms else [p for p in basis.problem.parameters if p in head]
    columns = ["query", *(c for p in searched for c in (p, f"{p}_std")), *terms, "noise_std", "status"]
    with pd.option_context("display.width", 120, "display.max_columns", None):
        click.echo(head[columns].to_string(index=False, float_format=lambda v: f"{v:.4g}"))
    click.echo(f"written to {output}" + (f", figures to {figures}" if figures else ""))


@main.command()
@click.argument("basis_dir", type=click.Path(path_type=Path))
def show(basis_dir: Path) -> None:
    """Print what a basis is for and how accurate it is."""
    from ipbasis.offline.artefact import Basis

    record = Basis.load(basis_dir).record
    problem, accuracy = record.problem, record.accuracy
    click.echo(f"problem      {problem.name}")
    for equation in problem.equations:
        click.echo(f"equation     {equation} = 0")
    for name, interval in problem.coordinates.items():
        click.echo(f"coordinate   {name} in {interval}")
    for name, interval in problem.parameters.items():
        click.echo(f"parameter    {name} trained in {interval}")
    click.echo(f"basis        {record.functions} functions, {record.features.words}")
    click.echo(f"residual     {accuracy.residual:.1e} of the solution's size, on unseen tasks")
    for name, parts in accuracy.by_range.items():
        quarters = ", ".join("-" if part is None else f"{part:.1e}" for part in parts)
        click.echo(f"             {quarters} in the quarters of the range of {name}")
    if accuracy.solution is not None:
        click.echo(f"solution     {accuracy.solution:.1e} relative error when solved from conditions, unseen tasks")
    if accuracy.approximation is not None:
        click.echo(f"best fit     {accuracy.approximation:.1e} relative error that no readouts avoid, unseen tasks")
    for name, value in record.figures.items():
        click.echo(f"{name:12} {value:.4g}")
    click.echo("versions     " + ", ".join(f"{name} {version}" for name, version in record.versions.items()))


@main.command()
@click.argument("problem", type=click.Path(path_type=Path))
def check(problem: Path) -> None:
    """Print what is understood of the PROBLEM in a YAML file, and warn of what is likely not meant."""
    from ipbasis.problem.advice import advice
    from ipbasis.problem.declaration import Problem
    from ipbasis.problem.summary import summary

    declared = Problem.from_yaml(problem)
    for word, text in summary(declared):
        click.echo(f"{word:12} {text}")
    for text in advice(declared):
        click.echo(f"{'warning':12} {text}")


@main.command()
@click.argument("problem", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Directory for the basis.")
@click.option("--accuracy", default=1e-3, show_default=True, help="Relative error of unseen solutions to reach.")
@click.option("--minutes", default=5.0, show_default=True, help="Time it may take.")
@click.option(
    "--features",
    type=click.Choice(["windows", "chebyshev", "random", "trained"]),
    help="Kind of functions  [default: the one that suits the problem]",
)
def train(problem: Path, output: Path, accuracy: float, minutes: float, features: str | None) -> None:
    """Train a basis of the PROBLEM in a YAML file: the solutions over the ranges of its parameters."""
    import time

    from ipbasis.offline.artefact import Basis
    from ipbasis.offline.train import train as train_basis
    from ipbasis.problem.declaration import Problem

    declared, began = Problem.from_yaml(problem), time.monotonic()
    if output.is_file():
        raise InputError(f"{output}: a file; a directory for the basis is right")
    refuse_inputs(Basis.files(output), [problem])

    def told(text: str) -> None:
        spent = time.monotonic() - began
        left = "" if len(declared.coordinates) == 1 else f", at most {max(60 * minutes - spent, 0):.0f} s left"
        click.echo(f"{spent:6.0f} s{left}  {text}", err=True)

    with claimed(*Basis.files(output)):
        basis = train_basis(declared, accuracy, minutes, features, told, output / "unfinished")
        basis.save(output)
    reached = basis.record.accuracy.floor
    click.echo(f"{declared.name}: {basis.record.functions} functions, {basis.record.features.words}")
    click.echo(f"relative error of unseen solutions {reached:.1e}, asked for {accuracy:g}")
    if reached > accuracy:
        click.echo("the accuracy is not met: narrower ranges, a shorter domain or more minutes would help")
    click.echo(f"written to {output}")
    if basis.record.figures.get("interrupted"):
        click.echo("stopped: the same command again goes on", err=True)
        raise click.exceptions.Exit(130)


@main.command()
@click.argument("problem", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Where the data go: a .csv or .parquet file."
)
@click.option("--truth", type=click.Path(path_type=Path), help="Where the parameters behind them go, likewise.")
@click.option(
    "--parameters",
    type=click.Path(path_type=Path),
    help="Table with a row for each query and columns named like parameters, or initial_<name>; the rest is drawn "
    "from the ranges.",
)
@click.option("--queries", type=click.IntRange(1), default=12, show_default=True, help="Data sets, without a table.")
@click.option("--points", type=click.IntRange(1), default=100, show_default=True, help="Of observation, of each query.")
@click.option("--equispaced", is_flag=True, help="The same points for all queries, instead of random ones for each.")
@click.option(
    "--noise", default=0.03, show_default=True, help="Standard deviation over the root mean square of each field."
)
@click.option("--fields", help="Those that are observed, such as x,y  [default: all]")
@click.option("--seed", default=0, show_default=True, help="Of all that is drawn.")
def simulate(
    problem: Path,
    output: Path,
    truth: Path | None,
    parameters: Path | None,
    queries: int,
    points: int,
    equispaced: bool,
    noise: float,
    fields: str | None,
    seed: int,
) -> None:
    """Simulate data sets of the PROBLEM in a YAML file: to try a design before the experiment."""
    from contextlib import ExitStack

    from ipbasis.observations.readers import read_table, write_table
    from ipbasis.problem.declaration import Problem
    from ipbasis.simulation.simulate import simulation

    declared = Problem.from_yaml(problem)
    for path in filter(None, (output, truth)):
        if path.suffix.lower() not in (".csv", ".parquet"):
            raise InputError(f"{path}: the name of a table must end in .csv or .parquet")
    outputs = [path for path in (output, truth) if path is not None]
    refuse_inputs(outputs, [path for path in (problem, parameters) if path is not None])
    given = None if parameters is None else read_table(parameters)
    with claimed(*outputs), ExitStack() as written:
        found = simulation(
            declared,
            given,
            points,
            noise,
            queries=queries,
            fields=None if fields is None else [name.strip() for name in fields.split(",")],
            layout="equispaced" if equispaced else "random",
            seed=seed,
        )
        for path, table in zip(outputs, (found.observations, found.truth), strict=False):
            write_table(table, written.enter_context(replacing_file(path)))
    shown = ", ".join(field for field in declared.fields if field in found.observations)
    click.echo(f"{declared.name}: {len(found.truth)} queries, {found.points.shape[1]} points each of {shown}")
    click.echo(f"written to {output}" + (f", truth to {truth}" if truth else ""))


@main.command()
def problems() -> None:
    """List the problems that come with ipbasis."""
    from textwrap import fill

    from ipbasis.problem.declaration import Problem, about, problem_directory

    for path in sorted(problem_directory().glob("*.yaml")):
        problem = Problem.from_yaml(path)
        click.echo(problem.name)
        click.echo(fill(about(path), 116, initial_indent="    ", subsequent_indent="    "))
        for equation in problem.equations:
            click.echo(f"    {equation} = 0")
        click.echo("    " + ", ".join(f"{name} in {interval}" for name, interval in problem.parameters.items()))


if __name__ == "__main__":
    sys.exit(main())
