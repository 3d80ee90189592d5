"""Solutions that need no basis: exact ones, integrated ones, and their sensitivities.

They judge what the other rooms find, so that nothing here may rest on features or a basis.
"""
