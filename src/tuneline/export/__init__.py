"""From the tuned model to a file that is shipped: merge, convert, quantise, compare every link, package."""
