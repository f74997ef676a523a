"""Attacks that are really made, each first where nothing stands in its way, then where something does."""
