"""What a person writes in conf/, what the pipeline reads from params.yaml, and the rules both obey."""
