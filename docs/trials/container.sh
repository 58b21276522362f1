#!/bin/sh
# Builds .ci/Dockerfile where there is no Docker: with buildah, as root, from a Debian that mmdebstrap makes. Asks nobody but
# Debian's mirror and PyPI, and leaves the image `hikube-local` in buildah's store.
#   sudo apt-get install buildah mmdebstrap && sudo sh docs/trials/container.sh
set -eu
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mmdebstrap --variant=minbase --format=tar bookworm "$work/base.tar"
base=$(buildah from scratch)
buildah add -q "$base" "$work/base.tar" /
buildah commit -q "$base" docker.io/library/debian:12
buildah rm "$base"
buildah bud --pull-never --network host -f .ci/Dockerfile -t hikube-local .
made=$(buildah from --pull-never localhost/hikube-local)
buildah run "$made" -- hikube-local version
buildah run "$made" -- hikube-local doctor || true # which names what the container lacks
buildah rm "$made"
