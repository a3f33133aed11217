"""What the user asked for: the command line over a YAML file over the defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from posbench.bench import experiments
from posbench.core.device import memory
from posbench.core.errors import UsageError, nearest
from posbench.core.files import read_regular_file, user_path

#: The executor that runs jobs on this machine.
LOCAL = "local"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The choices of one `posbench run`, by the names of its options. Names are not looked up here.

    Attributes:
        backbones: None, as in a bare run, stands for EfficientNet-Lite0 and the control `none`.
        test_images: None stands for the training source.
        image_size: in pixels. train_count, test_count: in crops.
        published: the table of a paper to show beside the results.
        experiment: what the other choices were taken from, where nothing else was asked for.
        shard: `i/n` for the i-th of n parts of the plan, or None for all of it.
        executor: where jobs run. jobs: how many at once; None leaves it to the executor: this process alone, or as many
            as a cluster has room for. time_limit: of a job, in seconds.
        cpus_per_job, gpus_per_job: what a job takes of a cluster. ray_address: None stands for `RAY_ADDRESS` or,
            without that, for a cluster started on this machine.
    """

    backbones: tuple[str, ...] | None = None
    paddings: tuple[str, ...] = ("zero", "circular", "reflect")
    targets: tuple[str, ...] = ("H", "V", "G", "HS", "VS")
    images: tuple[str, ...] = ("photos",)
    test_images: tuple[str, ...] | None = None
    readouts: tuple[str, ...] = ("ridge",)
    metrics: tuple[str, ...] = ("spc", "mae", "r2")
    controls: tuple[str, ...] = ()
    weights: tuple[str, ...] = ("auto",)
    seeds: tuple[int, ...] = (0,)
    taps: str = "all"
    image_size: int = 224
    train_count: int = 256
    test_count: int = 64
    score_at: str = "grid"
    precision: str = "auto"
    device: str = "auto"
    store: Path = Path("posbench.db")
    published: str | None = None
    experiment: str | None = None
    shard: str | None = None
    executor: str = LOCAL
    jobs: int | None = None
    time_limit: int | None = None
    cpus_per_job: int | None = None
    gpus_per_job: float | None = None
    ray_address: str | None = None
    csv: str | None = None
    json: bool = False
    dry_run: bool = False
    force: bool = False
    fail_fast: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        for name in LARGEST:
            if getattr(self, name) is not None and not 1 <= getattr(self, name) <= LARGEST[name]:
                raise UsageError(f"{_option(name)} is {getattr(self, name)}: give 1 to {LARGEST[name]}")
        for name in ("paddings", "targets", "images", "readouts", "metrics", "seeds"):
            if not getattr(self, name):
                raise UsageError(f"{_option(name)} is empty: name at least one, or leave it out for the default")
        if self.backbones == () or self.test_images == ():
            raise UsageError("an empty list was given: name at least one, or leave the option out for the default")
        if self.score_at not in SCORE_AT:
            raise UsageError(f"--score-at {self.score_at!r}: choose {' or '.join(SCORE_AT)}")
        self.part()
        self._check_resources()
        if min(self.seeds) < 0:
            raise UsageError(f"--seeds {min(self.seeds)} is negative: seeds are whole numbers from 0")
        if max(self.seeds) > LARGEST_SEED:
            raise UsageError(f"--seeds {max(self.seeds)} is too large: give at most {LARGEST_SEED}")

    def _check_resources(self) -> None:
        for name in ("cpus_per_job", "gpus_per_job", "ray_address"):
            if getattr(self, name) is not None and self.executor == LOCAL:
                raise UsageError(f"{_option(name)} is for jobs that run on a cluster: add --executor ray")
        if self.gpus_per_job is not None:
            whole = self.gpus_per_job.is_integer()
            if not 0 < self.gpus_per_job <= (LARGEST_GPUS if whole else 1):
                raise UsageError(
                    f"--gpus-per-job {self.gpus_per_job:g}: give a share of one, such as 0.5, or a whole number"
                )

    def check_crops(self) -> None:
        """Crops of a job are held in memory: here, or wherever a cluster computes, or what is planned is run.

        Raises:
            UsageError: if there is not so much of it.
        """
        size = (self.train_count + self.test_count) * self.image_size**2 * 3
        here = self.executor == LOCAL and not self.dry_run
        room = min(memory(), LARGEST_CROPS) if here else LARGEST_CROPS
        if size > room:
            where = "this machine has" if room < LARGEST_CROPS else "a job may take"
            raise UsageError(
                f"{self.train_count} training and {self.test_count} test crops of {self.image_size} pixels are "
                f"{size / 2**30:.1f} GiB, and {where} {room / 2**30:.1f} GiB of memory: "
                "lower --train-count, --test-count or --image-size"
            )

    def part(self) -> tuple[int, int]:
        """The number of the shard, from 1, and of how many.

        Raises:
            UsageError: if what was given is none.
        """
        if self.shard is None:
            return 1, 1
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", self.shard)
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= count:
            raise UsageError(f"--shard {self.shard!r}: give i/n with i from 1 to n, such as 2/8")
        return number, count


SCORE_AT = ("grid", "image")
LARGEST_CROPS = 2**40  # bytes: what the largest machines have
LARGEST_CONFIG = 2**20  # bytes: room for a hundred thousand names
LARGEST_GPUS = 1024
LARGEST_SEED = 2**64 - 1  # what torch's generators take
LARGEST = {
    "image_size": 4096,
    "train_count": 1_000_000,
    "test_count": 1_000_000,
    "jobs": 1024,
    "cpus_per_job": 1024,
    "time_limit": 10_000_000,
}
_KINDS = {field.name: str(field.type) for field in fields(RunConfig)}


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def load_config(
    config: Path | None, options: Mapping[str, Any], *, defaults: Mapping[str, Any] = MappingProxyType({})
) -> RunConfig:
    """The selection that an experiment, a configuration file and the command line make together, the last first.

    Args:
        config: a YAML file with the options' names as keys, or None.
        options: the options given on the command line by field name; None stands for one that was not given.
        defaults: in place of the fields' own.

    Raises:
        UsageError: if a key is unknown or given twice, a value does not fit, with the file and line, for a file; or if
            no memory holds the crops.
    """
    chosen: dict[str, Any] = _read(config) if config else {}
    chosen |= {name: _parse(name, value, _option(name)) for name, value in options.items() if value is not None}
    if "experiment" in chosen:
        chosen = _read(experiments.path(chosen["experiment"])) | chosen
    run_config = RunConfig(**{**defaults, **chosen})
    run_config.check_crops()
    return run_config


def _parse(name: str, value: object, where: str) -> object:
    """One value, from YAML or the command line, as the field's type.

    Raises:
        UsageError: if it does not fit, naming `where` it stands.
    """
    kind = _KINDS[name]
    if kind.startswith("tuple[str"):
        if isinstance(value, str):
            value = [value] if name == "weights" else value.split(",")
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(dict.fromkeys(item.strip() for item in value if item.strip()))
        raise UsageError(f"{where}: expected names, as a list or separated by commas, not {value!r}")
    if kind.startswith("tuple[int"):
        items = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        return tuple(dict.fromkeys(_whole(item, where) for item in items))
    if kind.startswith("int"):
        return _whole(value, where)
    if kind.startswith("float"):
        return _real(value, where)
    if kind == "bool":
        if isinstance(value, bool):
            return value
        raise UsageError(f"{where}: expected true or false, not {value!r}")
    if name == "taps" and isinstance(value, list | int) and not isinstance(value, bool):
        value = ",".join(str(number) for number in (value if isinstance(value, list) else [value]))
    if not isinstance(value, str | Path) or not str(value):
        raise UsageError(f"{where}: expected text, not {value!r}")
    if kind != "Path" and (name != "csv" or value == "-"):
        return value
    try:
        path = user_path(str(value))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    return path if kind == "Path" else str(path)


def _whole(value: object, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # int() would also take "1_0" and "٣".
    if isinstance(value, str) and (text := value.strip()).isascii() and text.removeprefix("-").isdigit():
        if len(text) > 20:
            raise UsageError(f"{where}: a number of {len(text)} digits is too large")
        return int(text)
    raise UsageError(f"{where}: expected a whole number, not {value!r}")


def _real(value: object, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if (
        isinstance(value, str)
        and re.fullmatch(r"[0-9]{0,9}\.?[0-9]{0,9}", text := value.strip())
        and text not in ("", ".")
    ):
        return float(text)
    raise UsageError(f"{where}: expected a number, such as 0.5, not {value!r}")


def _read(path: Path) -> dict[str, Any]:
    """The options in a YAML file, by field name. Raises as `select` does."""
    try:
        root = yaml.compose(read_regular_file(path, LARGEST_CONFIG).decode("utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UsageError(f"config {str(path)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"config {str(path)!r} is not UTF-8 text: save it as UTF-8") from error
    except RecursionError as error:
        raise UsageError(f"{path}: not valid YAML: it nests too deeply") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(f"{path}{line}: not valid YAML: {problem}") from error
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode) or root.tag != "tag:yaml.org,2002:map":
        raise UsageError(f"{path}:{root.start_mark.line + 1}: expected options, such as `paddings: [zero, circular]`")
    chosen: dict[str, Any] = {}
    for key, value in root.value:
        where = f"{path}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{where}: expected an option, such as paddings, for a key")
        name = key.value.replace("-", "_")
        if name not in _KINDS:
            raise UsageError(f"{where}: unknown key {key.value!r}{nearest(name, _KINDS)}")
        if name in chosen:
            raise UsageError(f"{where}: {key.value!r} is given twice: keep one")
        chosen[name] = _parse(name, _plain(value, path), f"{where}: {key.value}")
        try:
            RunConfig(**{name: chosen[name]})
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
    return chosen


def _plain(node: yaml.Node, path: Path) -> object:
    """A scalar or a flat list of scalars; nothing that a node could nest, tag or refer to is built."""
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_scalar(item, path) for item in node.value]
    return _scalar(node, path)


def _scalar(node: yaml.Node, path: Path) -> object:
    """Text, a whole number, or true or false; what else YAML has is text."""
    where = f"{path}:{node.start_mark.line + 1}"
    loader = yaml.SafeLoader("")
    if not isinstance(node, yaml.ScalarNode) or node.tag != loader.resolve(  # type: ignore[no-untyped-call]
        yaml.ScalarNode, node.value, (node.style is None, node.style is not None)
    ):
        raise UsageError(f"{where}: expected a plain value or a list of plain values")
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        raise UsageError(f"{where}: a key without a value: give it one, or leave it out for the default")
    if kind == "int" and len(node.value) <= 20:
        value: int = loader.construct_yaml_int(node)
        # YAML 1.1 reads 010 as 8 and 1:30 as 90.
        if str(value) != node.value:
            raise UsageError(f"{where}: {node.value} is ambiguous: write {value}, or quote it")
        return value
    if kind == "bool":
        return bool(loader.construct_yaml_bool(node))
    return str(node.value)
