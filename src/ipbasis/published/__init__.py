"""The recipes of the paper (Manor & Kohandel, arXiv 2509.07245) and its plain PINN, as they were published.

Known to no room below: the product does not need them. Their settings are not tuned, or the tables say so.
"""
