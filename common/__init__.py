"""The code that all experiments share: one data loader, one training loop, one metric."""
