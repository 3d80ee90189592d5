"""What ipbasis is compared with: least squares around a solver, other bases, other ways to differentiate.

Baselines are tuned as well as ours and share no code with the search.
"""
