"""A task in words becomes a plan a person can read; the plan becomes finished work a person can check."""

__version__ = "0.1.0"
