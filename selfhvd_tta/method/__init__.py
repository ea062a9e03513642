"""The SelfHVD method, one file per idea of the paper: tensors in, tensors out; no files, no terminal."""
