"""What has nothing to do with segmentation; imports nothing else of the project."""
