"""Tables of observations: read, checked, cut into batches; and how they are simulated.

From outside, batches are what solvers get; the table behind them is changed here alone.
"""
