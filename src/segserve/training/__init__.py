"""Scenes, demo weights, fine-tuning and evaluation."""
