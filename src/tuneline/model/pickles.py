"""Files that run code when they are loaded, by their names."""

from pathlib import Path

# https://docs.python.org/3/library/pickle.html; NumPy's may hold pickled objects
SUFFIXES = (".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth")


def is_pickle_name(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES
