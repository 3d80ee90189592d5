"""One entry for each stage of dvc.yaml, named like it.

What several of them share stands in the rooms below; no stage imports another.
"""
