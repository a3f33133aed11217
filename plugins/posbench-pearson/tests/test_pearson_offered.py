import posbench_pearson as plugin

from posbench.plugin.registry import load_registry


def test_posbench_offers_it_without_error() -> None:
    entry = load_registry().entry("metric", "pearson")
    assert entry.plugin.distribution == "posbench-pearson"
    assert entry.plugin.error is None
    assert entry.component.score is plugin.pearson
