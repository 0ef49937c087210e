"""Torch predictors, one file per model family. They know neither HTTP nor TorchServe."""
