"""From solutions to estimates: intervals, statuses, checks by the reference, tables, files of any size.

What users get; everything below may change as long as this stays.
"""
