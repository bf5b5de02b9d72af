"""Fuzz targets for the readers and the writer, their corpus, and the program that feeds them by atheris."""
