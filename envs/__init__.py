"""Environments: the registry, the base classes, the random stream and one file per model."""
