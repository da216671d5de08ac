"""What a person runs outside the pipeline."""
