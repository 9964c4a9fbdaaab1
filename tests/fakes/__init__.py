"""Real servers that stand in for the outside, in this process, on port 0."""
