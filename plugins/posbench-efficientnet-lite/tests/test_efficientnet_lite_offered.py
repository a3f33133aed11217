import posbench_efficientnet_lite as plugin
import pytest

from posbench.plugin.registry import load_registry


@pytest.mark.parametrize("variant", [1, 2])
def test_posbench_offers_it_without_error(variant: int) -> None:
    entry = load_registry().entry("backbone", f"efficientnet-lite{variant}")
    assert entry.plugin.distribution == "posbench-efficientnet-lite"
    assert entry.plugin.error is None
    assert (entry.component.build.func, entry.component.build.args) == (plugin.build, (variant,))
