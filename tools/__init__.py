"""Programs to run on data and on trained models, as `python -m tools.predict`."""
