"""Chapter 5: networks whose layers are steps of an optimization."""
