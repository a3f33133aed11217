import posbench_antireflect as plugin

from posbench.plugin.registry import load_registry


def test_posbench_offers_it_without_error() -> None:
    entry = load_registry().entry("padding", "antireflect")
    assert entry.plugin.distribution == "posbench-antireflect"
    assert entry.plugin.error is None
    assert entry.component.pad is plugin.pad
