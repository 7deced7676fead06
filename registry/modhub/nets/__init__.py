"""A CNN as data: import, channel groups, slicing, running."""
