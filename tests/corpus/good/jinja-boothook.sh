## template: jinja
#cloud-boothook
#!/bin/sh
echo "{{ v1.instance_id }} is up" > /run/boothook
