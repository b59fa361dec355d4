"""Formats of labelling programs, one file each. tools.import_labels reads them."""
