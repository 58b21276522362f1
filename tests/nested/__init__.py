"""A Debian 13 host with a working /dev/kvm, inside QEMU's emulation: what only a real host shows is tried on it."""
