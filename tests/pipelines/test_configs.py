"""Every configuration composes and parses, and every part of it makes the settings it is for."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from stages import CONF, benchmark, study

from ipbasis.baselines.least_squares import LeastSquaresSettings
from ipbasis.errors import InputError
from ipbasis.offline.settings import BasisSettings
from ipbasis.published.train import PublishedSettings
from pipelines.cells import cells
from pipelines.pinn import optimisers
from pipelines.querying import solver_of
from pipelines.shown import shown_cells
from pipelines.smoke import phases as smoke_phases
from pipelines.studies.sweep import of_length, parsed_job
from pipelines.studies.throughput import Throughput
from pipelines.training import AutomaticSettings, basis_settings

ROOT = Path(__file__).parents[2]
PARAMETERS = yaml.safe_load((ROOT / "params.yaml").read_text())
TRAINED = PARAMETERS["trained"].split(",")


def names(group):
    return sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))


PROBLEMS, PROFILES = names("benchmark"), names("profile")


def test_every_benchmark_has_one_file_and_its_problem_another():
    assert set(PROBLEMS) <= set(names("problem"))
    further = {path for path in CONF.rglob("*.yaml") if path.stem in PROBLEMS}
    assert further == {CONF / group / f"{name}.yaml" for group in ("problem", "benchmark") for name in PROBLEMS}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_recipe_of_a_problem_composes_into_a_benchmark(problem, profile):
    for recipe in benchmark(problem, f"profile={profile}").recipes:
        parsed = benchmark(problem, f"profile={profile}", f"recipe={recipe}")
        assert (parsed.name, parsed.recipe, parsed.profile) == (problem, recipe, profile)
        assert parsed.chosen == parsed.recipes[recipe]
        assert solver_of(parsed.chosen).solver == parsed.chosen.online["solver"]
        assert parsed.chosen.source in parsed.trained_recipes
        assert len({cell.name for cell in cells(parsed)}) == len(cells(parsed))
        assert shown_cells(parsed)
        assert ("published_" in optimisers(parsed.baselines.pinn)) == bool(parsed.baselines.pinn.as_published)
        LeastSquaresSettings(**parsed.baselines.least_squares.settings)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_training_composes_and_instantiates(problem, profile):
    parsed = benchmark(problem, f"profile={profile}")
    kinds = {"ipbasis": BasisSettings, "paper_recipe": PublishedSettings}
    if problem == "quantum_oscillator":
        kinds = {"ipbasis": AutomaticSettings, "trained": BasisSettings, "paper_recipe": PublishedSettings}
    assert set(parsed.trained_recipes) == set(kinds)
    for recipe, kind in kinds.items():
        chosen = parsed.with_recipe(recipe)
        if kind is not AutomaticSettings:
            keys = {"dtype", "first_layer_scale", "training", "forward", "compression", "validation"}
            assert set(chosen.chosen.offline) == keys
        assert isinstance(basis_settings(chosen), kind)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_benchmark_on_the_basis_of_another_says_of_the_training_what_that_one_does(profile):
    own, taken = (benchmark(name, f"profile={profile}") for name in ("lotka_volterra", "lotka_volterra_unknown_terms"))
    assert own.basis == taken.basis
    assert all(own.recipes[name].offline == taken.recipes[name].offline for name in own.trained_recipes)


def test_budgets_are_the_benchmark_s_own_then_the_profile_s_then_those_of_the_command_line():
    standard, smoke = (benchmark("quantum_oscillator", f"profile={profile}") for profile in ("standard", "smoke"))
    assert (standard.budget.queries, smoke.budget.queries) == (10, 3)
    assert smoke.recipes["paper_recipe"].offline["training"]["steps"] == 20
    given = benchmark("quantum_oscillator", "profile=smoke", "+budget.offline.steps.paper_recipe=7")
    assert given.recipes["paper_recipe"].offline["training"]["steps"] == 7
    for profile in PROFILES:
        assert set(yaml.safe_load((CONF / "profile" / f"{profile}.yaml").read_text())["exceptions"]) <= set(PROBLEMS)


NEW_PROBLEM = """
name: decay
coordinates: {t: [0, 2]}
fields: [u]
parameters: {rate: [0.5, 2]}
equations: ["u_t + rate*u"]
initial: {u: [0.5, 1.5]}
"""
NEW_BENCHMARK = """
# @package _global_
defaults: [_defaults, _self_]

basis: {readouts: 20, width: 30, depth: 3, quadrature_points: 60}
observations:
  sets: [{label: {}}]
  cells: {noise: [0, 5]}
  scored: [rate]
recipes:
  ipbasis:
    offline:
      dtype: float64
      first_layer_scale: 1
      training: {learning_rate: 1e-3, decay: true, collocation_points: 60, validate_every: 100}
      forward: {condition_weight: 100, condition_points: 1, rank_tolerance: 1e-12}
      compression: {tasks: 100, tolerance: 1e-10}
      validation: {queries: 50}
  paper_recipe:
    offline:
      training: {learning_rate: 1e-3, collocation_points: 60}
    online: {solver: adam}
baselines:
  pinn:
    trunk: {width: 30}
report: {table: decay, x: readouts, x_text: readouts of the basis}
standard:
  queries: 50
  paper_queries: 20
  crossed_queries: 10
  noise_seeds: 5
  offline: {steps: {ipbasis: 200, paper_recipe: 1000}}
  online: {steps: {paper_recipe: 500}}
  pinn: {cells: [{noise_percent: 0}], queries: 1, steps: 300, lbfgs_steps: 100, points: 30}
  least_squares: {queries: 3}
"""


@pytest.mark.parametrize("profile", PROFILES)
def test_a_new_benchmark_is_two_files(tmp_path, profile):
    conf = shutil.copytree(CONF, tmp_path / "conf")
    (conf / "problem" / "decay.yaml").write_text(NEW_PROBLEM)
    (conf / "benchmark" / "decay.yaml").write_text(NEW_BENCHMARK.lstrip())
    parsed = benchmark("decay", f"profile={profile}", conf=conf)
    assert parsed.basis.problem == parsed.name == "decay"
    assert [cell.label for cell in cells(parsed)] == [{"noise_percent": 0}, {"noise_percent": 5}]
    for name in parsed.trained_recipes:
        basis_settings(parsed.with_recipe(name))
    for recipe in parsed.recipes.values():
        solver_of(recipe)
    assert parsed.budget.queries == {"smoke": 5}.get(profile, 50)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "+observations.numbers=3",
            "observations.numbers: no such key; do you mean 'number'? there are number, layout,",
        ),
        ("+recipes.ipbasis.ofline={}", "recipes.ipbasis.ofline: no such key; do you mean 'offline'? there are source,"),
        ("recipe=paper", "recipe: damped_oscillator has no recipe 'paper'; it has ipbasis, paper_recipe"),
        ("observations.scored=[a4]", "observations.scored: there is no parameter 'a4'; there are a1, a2, a3"),
        ("observations.number=0", "observations.number: input should be greater than 0"),
        ("+budget.querys=3", "budget.querys: no such key; do you mean 'queries'? there are queries,"),
        ("+colour=red", "colour: no such key; there are problem, basis, observations,"),
        ("basis.width=${budget.width}", "configuration: Interpolation key 'budget.width' not found"),
        ("problem.parameters.a1=[2,1]", "parameters.a1: range [2, 1]: low must be below high"),
    ],
)
def test_a_wrong_value_is_told_with_its_place_and_what_would_be_right(override, message):
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        benchmark("damped_oscillator", override)
    assert "\n" not in str(raised.value)


def test_a_solver_that_is_not_there_is_told():
    with pytest.raises(InputError, match=r"online.solver: 'newton' is not known; there are gauss_newton, free_form"):
        solver_of(benchmark("damped_oscillator", "recipes.ipbasis.online.solver=newton").chosen)


def test_a_wrong_value_of_a_study_is_told_with_its_place():
    with pytest.raises(InputError, match=r"sizes.lotka_volterra.batches.0: input should be greater than 0"):
        study(Throughput, "throughput", "profile.studies.throughput.lotka_volterra.batches=[0]")


def test_parameters_of_the_stages_agree_with_the_configurations():
    assert PARAMETERS["profile"] in PROFILES
    assert set(PARAMETERS["problems"]) == set(PARAMETERS["every"].split(",")) == set(PROBLEMS)
    for problem, chosen in PARAMETERS["problems"].items():
        parsed = benchmark(problem)
        (further,) = set(parsed.recipes) - set(parsed.trained_recipes) or {"ipbasis"}
        assert chosen == {"basis": parsed.basis.problem, "table": parsed.report.table, "further": further}
        assert chosen["basis"] in TRAINED
    assert {base["problem"] for base in PARAMETERS["bases"].values()} == set(TRAINED)
    published = {path.stem for path in (ROOT / "data" / "published").glob("*.csv")}
    written = {f"{problem}_offline" for problem in TRAINED}
    written |= {f"{c['table']}_{kind}" for c in PARAMETERS["problems"].values() for kind in ("online", "pinn")}
    assert published <= written


def test_stages_that_do_all_problems_write_for_each_of_them():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert set(stages["least_squares"]["outs"]) == {f"data/estimates/{p}/least_squares" for p in PARAMETERS["problems"]}
    tables = [path for out in stages["offline"]["outs"] for path in out if path.endswith(".csv")]
    assert set(tables) == {f"reports/tables/{problem}_offline.csv" for problem in TRAINED}


def test_smoke_runs_every_stage():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    listed = [name for phase in smoke_phases(PARAMETERS) for part in phase for name in part]
    expected = [name for name, stage in stages.items() if "foreach" not in stage]
    for name, stage in stages.items():
        if "foreach" in stage:
            expected += [f"{name}@{key}" for key in PARAMETERS[stage["foreach"].strip("${}")]]
    assert sorted(listed) == sorted(expected)


def test_no_omegaconf_interpolation_in_files_that_dvc_templates():
    assert "${" not in (ROOT / "params.yaml").read_text()


def test_every_variant_of_the_training_differs_from_the_base_and_instantiates():
    swept_by = yaml.safe_load((CONF / "study" / "training.yaml").read_text())["hydra"]["sweeper"]["params"]
    swept = [name.strip() for name in swept_by["+variant"].split(",")]
    assert swept[0] == "base"
    assert sorted(swept) == names("variant")
    chosen, labels = {}, set()
    for name in swept:
        with initialize_config_dir(str(CONF), version_base=None):
            overrides = ["study=training", "problem=quantum_oscillator", "recipe=trained", f"+variant={name}"]
            job = parsed_job(compose("config", overrides))
        basis_settings(job)
        chosen[name] = job.chosen.offline
        labels.add(job.study.label)
    assert chosen["base"] == benchmark("quantum_oscillator", "recipe=trained").chosen.offline
    assert all(chosen[name] != chosen["base"] for name in swept[1:])
    assert len(labels) == len(swept)
    full = yaml.safe_load((CONF / "study" / "training_full.yaml").read_text())["hydra"]["sweeper"]["params"]
    assert set(full["+variant"].split(",")) < set(swept)


def test_a_study_crosses_the_training_of_one_recipe_with_the_solver_of_another():
    with initialize_config_dir(str(CONF), version_base=None):
        job = parsed_job(compose("config", ["study=readouts", "online=paper_recipe", "basis.readouts=10"]))
    assert job.chosen.offline == job.recipes["ipbasis"].offline
    assert job.chosen.online == job.recipes["paper_recipe"].online
    assert job.chosen.offline["training"]["readouts"] == 10
    steps = job.chosen.offline["training"]["steps"]
    assert of_length(job, 0.25).chosen.offline["training"]["steps"] == steps / 4
