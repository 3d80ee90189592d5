"""The parameters of a batch of queries on a basis: assembled, searched, with their covariance.

Solvers take a batch and give a solution; statuses, intervals and tables are made in the room above.
"""
