"""Rules that compare two keys of params.yaml. Each broken one is `key: value, allowed ...; fix`."""
