"""The client: typed resources over the pipeline."""
