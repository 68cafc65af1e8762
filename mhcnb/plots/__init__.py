"""Figures of analysis results: plot_x(data, ax=None) -> Figure, and say_x(data) -> its result in a sentence.

Nothing here reads or writes a file or changes matplotlib's global settings.
"""
