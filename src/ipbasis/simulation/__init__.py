"""Data sets of a problem, simulated: reference solutions at points, with noise, as a table of observations."""
