#!/bin/bash
set -euo pipefail
exec > >(tee -a /var/log/first-boot.log) 2>&1
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends nginx
cat > /var/www/html/index.html <<HTML
<h1>$(hostname)</h1>
HTML
systemctl enable --now nginx
