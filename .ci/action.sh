#!/usr/bin/env bash
# The steps of action.yml: install, kvm, test. What a user gave comes as environment variables, never as text of a script.
set -euo pipefail

PACKAGES="qemu-system-x86 qemu-utils ovmf libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients python3-libvirt
  dnsmasq-base slirp4netns nftables tini uidmap swtpm swtpm-tools"
VENV="${HIKUBE_VENV:-$HOME/.local/share/hikube-local-action}"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install() {
  local missing=()
  for p in $PACKAGES; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
  done
  if [ "${#missing[@]}" -gt 0 ]; then
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  fi
  [ -x "$VENV/bin/python" ] || /usr/bin/python3 -m venv --system-site-packages "$VENV"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "${HIKUBE_VERSION:-hikube-local}" pytest-testinfra junitparser
  if [ -n "${GITHUB_PATH:-}" ]; then echo "$VENV/bin" >>"$GITHUB_PATH"; fi
  "$VENV/bin/hikube-local" version
}

kvm() {
  if [ ! -e /dev/kvm ]; then
    echo "no /dev/kvm: machines are emulated, which takes a minute or two each"
  elif [ ! -w /dev/kvm ]; then
    # GitHub's own way: the group's rights reach no process that runs already.
    echo 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"' | as_root tee /etc/udev/rules.d/99-kvm4all.rules >/dev/null
    as_root udevadm control --reload-rules
    as_root udevadm trigger --name-match=kvm
  else
    echo "/dev/kvm can be used"
  fi
}

test_() {
  local report="${RUNNER_TEMP:-/tmp}/hikube-local-report" words=() manifests images image code=0
  mkdir -p "$report"
  read -r -a manifests <<<"${HIKUBE_MANIFESTS:?no manifests are given}"
  [ -z "${HIKUBE_CHECKS:-}" ] || words+=(--checks "$HIKUBE_CHECKS")
  [ -z "${HIKUBE_TIMEOUT:-}" ] || words+=(--timeout "$HIKUBE_TIMEOUT")
  read -r -a images <<<"${HIKUBE_IMAGES:-}"
  for image in "${images[@]}"; do words+=(--image "$image"); done
  if [ -n "${GITHUB_OUTPUT:-}" ]; then echo "report=$report" >>"$GITHUB_OUTPUT"; fi
  "$VENV/bin/hikube-local" test "${words[@]}" --junit "$report/junit.xml" --html "$report/report.html" \
    --artifacts "$report" -- "${manifests[@]}" || code=$?
  return "$code"
}

case "${1:-}" in
  install) install ;;
  kvm) kvm ;;
  test) test_ ;;
  *) echo "usage: action.sh install|kvm|test" >&2; exit 2 ;;
esac
