"""Packaged data files: the releases and the class table. Found through `k710.config.manifests_folder`."""
