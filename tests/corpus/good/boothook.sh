#cloud-boothook
#!/bin/sh
# each boot, early
echo "boot of $INSTANCE_ID" >> /var/log/boothook.log
modprobe zram || true
