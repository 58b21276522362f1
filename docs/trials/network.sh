#!/bin/sh
# Says YES or NO: can an ordinary user have a tenant network on this host? Run it as that user, from a checkout in which
# `make up` was run once. Written for hosts that could not be tried when this was built: Ubuntu 24.04 with its AppArmor
# setting (kernel.apparmor_restrict_unprivileged_userns=1), Fedora with SELinux and virtqemud.
cd "$(dirname "$0")/../.." || exit 2
run=.venv/bin/hikube-local
[ -x "$run" ] || { echo "run \`make up\` first"; exit 2; }
export HIKUBE_LOCAL_HOME="${TMPDIR:-/tmp}/hikube-local-trial-$$"
trap '"$run" purge -A --disks --images --yes >/dev/null 2>&1; rm -rf "$HIKUBE_LOCAL_HOME"' EXIT
. /etc/os-release; echo "system: $PRETTY_NAME, $(uname -r)"
for f in kernel/apparmor_restrict_unprivileged_userns kernel/unprivileged_userns_clone user/max_user_namespaces; do
  [ -e "/proc/sys/$f" ] && echo "$f: $(cat "/proc/sys/$f")"
done
command -v getenforce >/dev/null && echo "SELinux: $(getenforce)"
"$run" doctor
"$run" up examples/quickstart.yaml --timeout 20m || { echo "NO: the machine did not come up (see above)"; exit 1; }
if "$run" get vm quickstart -o json | grep -q HK518; then
  echo "NO: no namespace was to be had; the machine is up, alone"
  exit 1
fi
"$run" network exec -- getent hosts vm-instance-quickstart.default.svc.cozy.local || { echo "NO: names do not resolve"; exit 1; }
echo "YES: the tenant network works for $(id -un)"
