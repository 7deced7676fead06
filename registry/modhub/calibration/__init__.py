"""From margins to numbers that compare, and thresholds for what is none of the classes."""
