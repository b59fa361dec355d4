"""What every experiment shares: one data loader, one training loop, one metric, one file per idea."""
