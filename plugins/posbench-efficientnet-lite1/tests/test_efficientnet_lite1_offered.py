import posbench_efficientnet_lite1 as plugin

from posbench.registry import load_registry


def test_posbench_offers_it_without_error() -> None:
    entry = load_registry().entry("backbone", "efficientnet-lite1")
    assert entry.plugin.distribution == "posbench-efficientnet-lite1"
    assert entry.plugin.error is None
    assert entry.component.build is plugin.build
