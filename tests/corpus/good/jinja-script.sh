## template: jinja
#!/bin/sh
set -eu
{% if v1.availability_zone is defined %}
echo "zone {{ v1.availability_zone }}" > /etc/zone
{% endif %}
hostnamectl set-hostname "{{ v1.local_hostname }}"
