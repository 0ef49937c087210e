"""What runs inside, builds for, starts and manages TorchServe."""
