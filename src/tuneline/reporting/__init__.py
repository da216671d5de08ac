"""What the data looks like, for people: tables, pictures and samples."""
