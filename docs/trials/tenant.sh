#!/bin/sh
# What only a real tenant of Hikube can show, tried in one and written into a folder. It makes one small machine and one disk,
# asks before it does, and deletes both at its end. It uploads nothing.
#   sh docs/trials/tenant.sh CONTEXT [FOLDER]      (CONTEXT: of `hikube-local context create NAME --kubeconfig FILE`)
set -u
context=${1:?name a context, as context ls lists them}
out=${2:-hikube-trial}
mkdir -p "$out" && chmod 700 "$out"
here() { hikube-local --context "$context" "$@"; }
try() {
	name=$1; shift
	printf '%s ... ' "$name"
	begin=$(date +%s)
	"$@" >"$out/$name.out" 2>"$out/$name.err"
	code=$?
	printf '%s after %s s\n' "$code" "$(($(date +%s) - begin))" | tee -a "$out/summary"
}
cat >"$out/vm.yaml" <<'YAML'
apiVersion: apps.cozystack.io/v1alpha1
kind: VMDisk
metadata: {name: hikube-local-trial}
spec: {source: {image: {name: debian-12}}, storage: 10Gi, storageClass: replicated}
---
apiVersion: apps.cozystack.io/v1alpha1
kind: VMInstance
metadata: {name: hikube-local-trial}
spec:
  instanceType: s1.small
  instanceProfile: debian
  disks: [hikube-local-trial]
  cloudInit: |
    #cloud-config
    write_files: [{path: /srv/trial, content: hello}]
YAML
for key in "$HOME"/.ssh/id_*.pub; do
	[ -e "$key" ] && printf '  sshKeys: ["%s"]\n' "$(cat "$key")" >>"$out/vm.yaml" && break
done
try check here context check
try get here get -o json
try events here events -o json
try validate here validate "$out/vm.yaml"
try plan here plan "$out/vm.yaml"
printf 'Make one machine (s1.small) and one disk (10Gi) in %s? [y/N] ' "$context"
read -r answer
[ "$answer" = y ] || exit 0
try up here up "$out/vm.yaml" --timeout 15m
try status here get vm hikube-local-trial -o json
try ssh here ssh hikube-local-trial -- cat /srv/trial
try record here compare "$out/vm.yaml" --record "$out/record.json"
try stop here stop hikube-local-trial
try start here start hikube-local-trial --wait
try test here test "$out/vm.yaml" --timeout 15m
try swept here sweep
try down here down "$out/vm.yaml" --disks --yes
try left here get -o name
cat "$out/summary"
echo "what was written: $out (read it before you send it to anybody: it names your server and your objects)"
