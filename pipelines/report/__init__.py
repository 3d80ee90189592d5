"""Tables, figures, reports and README from what the stages left.

Nothing is computed here but what is shown.
"""
