#cloud-boothook
#!/bin/sh
echo hook > /run/hook
