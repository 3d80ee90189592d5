"""Problems of one coordinate, solved in windows: the domain cut into pieces, a polynomial of each field in every one.

`grid` holds the pieces and what the equations say in them, `elimination` the linear algebra, `newton` the search of
Gauss and Newton for fields and parameters together, `train` the choice of the pieces.
"""
