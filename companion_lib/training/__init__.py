"""Chapter 8: training loops, and the checkpoints that every chapter's training shares."""

from companion_lib.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

__all__ = ["CheckpointError", "load_checkpoint", "save_checkpoint"]
