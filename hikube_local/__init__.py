"""hikube-local: Hikube's VMInstance and VMDisk manifests on your own machine."""

__version__ = "0.1.0"
