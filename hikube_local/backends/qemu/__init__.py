"""QEMU and KVM through a libvirt of our own."""

NAME = "qemu"
