"""Controls: the cells that check other cells."""
