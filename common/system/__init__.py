"""Modules that know nothing of segmentation and import nothing else of the project."""
